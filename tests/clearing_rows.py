"""What the clearing house must answer, row by row: tests of faults, bad input and vectors.

An entry is ``file::test`` of this folder, or several of them. Faults are in ``faults.FAULTS``.
"""

from typing import Final

Tests = tuple[str, ...]

FAULTS_OF_CLEARING: Final = tuple(f"F{number}" for number in range(35, 44))

BAD_INPUT: Final[dict[str, Tests]] = {
    "B70": (
        "test_bad_clearing::test_b70_an_account_that_is_not_the_senders",
        "test_bad_input::test_frames_that_are_no_command",
    ),
    "B71": ("test_bad_input::test_frames_that_are_no_command",),
    "B72": (
        "test_bad_clearing::test_b72_money_of_another_asset",
        "test_calls::test_collateral_counts_less_its_haircut",
    ),
    "B80": ("test_bad_clearing::test_b80_an_order_never_trades_with_its_own_account",),
    "B81": ("test_surveillance::test_two_house_accounts_of_one_member_do_not_trade_unnoticed",),
    "B82": ("test_bad_clearing::test_b82_above_free_margin_and_two_that_fit_only_singly",),
    "B83": ("test_bad_clearing::test_b83_working_orders_count_towards_the_position_limit",),
    "B92": (
        "test_engine_corrections::test_what_is_refused_in_order_of_precedence",
        "test_engine_corrections::test_a_trade_is_corrected_on_its_own_day_alone",
        "test_corrections::test_a_bust_takes_two_people_and_puts_the_books_back",
        "test_corrections::test_a_trade_inside_the_range_stands_unless_the_market_failed",
    ),
    "B93": (
        "test_corrections::test_a_key_is_a_person_and_makes_no_second_one",
        "test_settlement::test_a_price_needs_two_persons",
    ),
    "B94": ("test_corrections::test_a_proposal_outlives_a_restart_and_expires",),
    "B95": ("test_bad_clearing::test_b95_halted_twice_and_resumed_without_a_halt",),
    "B100": (
        "test_deliveries::test_an_intent_above_the_short_late_or_with_another_factor_is_refused",
        "test_deliveries::test_a_notice_at_the_cutoff_itself_is_in_time",
    ),
}

# File of vectors -> cases and their tests. A test reads every case of its kind.
VECTORS: Final[dict[str, dict[tuple[str, ...], Tests]]] = {
    "settlement": {
        ("S1", "S2a", "S3a", "S3b", "S4", "S5a", "S5b"): (
            "test_settlement::test_daily_price_vectors",
        ),
        ("S6a", "S6b", "S6d"): ("test_settlement::test_spread_blend_vectors",),
        ("S7a", "S7b"): ("test_settlement::test_weighted_vectors",),
        ("M1", "M3a"): ("test_settlement::test_margin_call_vectors",),
        ("M4", "M6"): ("test_settlement::test_variation_vectors",),
        ("M5",): ("test_settlement::test_average_cost_vectors",),
    },
    "margin": {
        (
            "P1",
            "P3",
            "P4",
            "P5",
            "P6a",
            "P7a",
            "P7b",
            "P8a",
            "P8c",
            "P9",
            "P10",
            "P11",
            "P12",
            "P13",
            "P14",
            "P15",
        ): ("test_margin_scan::test_the_vectors",),
    },
    "ledger": {
        ("T1", "T2", "T3", "T4", "T5", "T6", "T7a", "T8a", "T8c", "T9", "T10", "T11", "T12"): (
            "test_ledger::test_vectors",
        ),
    },
    "default": {
        ("W1", "W3", "W5", "W6"): ("test_waterfall::test_the_waterfalls_of_the_vectors",),
        ("L1", "L3", "L5", "L6"): ("test_waterfall::test_the_shared_losses_of_the_vectors",),
        ("G2",): ("test_waterfall::test_the_fund_sizes_of_the_vectors",),
    },
    "delivery": {
        ("K1a", "K1b", "K1d", "K1g"): (
            "test_delivery_terms::test_factors_of_the_vectors_round_as_ours_do",
        ),
        ("K1h",): ("test_delivery_terms::test_the_bond_invoice_of_the_vectors",),
        ("K2", "K4", "K5"): ("test_delivery_terms::test_the_invoices_of_the_vectors",),
        ("K3",): ("test_delivery::test_the_assignments_of_the_vectors",),
        ("K6",): (
            "test_delivery::test_the_intents_of_the_vectors",
            "test_delivery_terms::test_an_old_factor_version_is_refused_as_in_the_vectors",
        ),
    },
    "risk": {
        ("R1a", "R1b"): ("test_matching_vectors::test_position_limit",),
        ("R2",): ("test_matching_vectors::test_throttle",),
        ("R3",): ("test_risk_vectors::test_a_killed_account_cancels_and_does_nothing_else_itself",),
        ("R4",): ("test_engine_protections::test_the_daily_loss_trips_once",),
        ("R5", "R6"): ("test_matching_vectors::test_margin_hold",),
        ("R7",): ("test_risk_vectors::test_the_checks_come_in_the_order_of_the_vector",),
        ("R8",): ("test_risk_vectors::test_of_several_faults_the_earliest_is_reported",),
        ("R9",): ("test_risk_vectors::test_a_reject_carries_code_limit_and_observed",),
    },
}

# Not this product, and why. Nothing else may be left out.
EXEMPT: Final = {
    "margin P2": "the least margin of short options: no options are listed",
    "implied G1": "pro-rata allocation: books here are first in, first out",
}
# Bonds' conversion factors are not this product either; their arithmetic is run all the same.
NOT_OURS_AND_RUN: Final = ("K1a", "K1b", "K1d", "K1g", "K1h")
