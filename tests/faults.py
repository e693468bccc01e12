"""Every fault that a market must survive, by number: the tests that put it in, or why none does.

An entry is ``file::test`` of this folder, several of them, or a reason that begins with ``not:``.
"""

from typing import Final

FAULTS: Final[dict[str, str | tuple[str, ...]]] = {
    # journal and crash
    "F01": "test_faults::test_f01_a_log_cut_at_every_byte_replays_to_its_last_whole_frame",
    "F02": "test_crash::test_a_server_killed_under_load_loses_and_doubles_nothing",
    "F03": "test_faults::test_f03_random_bytes_in_the_last_sector",
    "F04": "test_faults::test_f04_a_flipped_bit_early_in_the_log",
    "F05": "test_faults::test_f05_a_frame_removed_doubled_or_swapped",
    "F06": "test_faults::test_f06_a_tail_of_zeros_is_the_end",
    "F07": (
        "test_faults::test_f07_a_sync_that_fails_once_is_the_end_of_the_process",
        "test_faults::test_f07_the_process_ends_by_itself_and_the_next_one_goes_on",
    ),
    "F08": (
        "test_faults::test_f08_a_disk_that_fills_in_the_middle_of_a_frame",
        "test_faults::test_f08_a_stop_while_the_disk_is_full_leaves_what_was_not_answered",
        "test_full_disk::test_a_whole_market_lives_through_it",
        "test_full_disk::test_orders_are_refused_and_cancels_answered_until_there_is_room",
    ),
    "F09": "test_faults::test_f09_short_writes_and_interrupted_calls_are_completed",
    "F10": "test_faults::test_f10_a_sync_that_stalls_holds_up_acknowledgements_and_nothing_else",
    "F11": (
        "test_faults::test_f11_a_directory_that_turns_read_only_as_the_log_rolls",
        "test_full_disk::test_a_directory_that_turns_read_only_when_the_log_rolls",
    ),
    "F12": (
        "test_snapshots::test_a_crash_before_the_rename_leaves_the_older_one",
        "test_archive::test_a_crash_between_copy_and_removal_changes_nothing",
        "test_snapshots::test_a_log_whose_first_segments_are_archived_elsewhere_starts_from_a_snapshot",
    ),
    "F13": "test_snapshots::test_every_flipped_bit_and_every_cut_is_found",
    "F14": "test_snapshots::test_a_snapshot_above_the_log_is_passed_over",
    "F15": "test_faults::test_f15_a_second_writer_fails_on_the_lock",
    "F16": (
        "test_golden::test_an_old_log_replays_to_its_old_bytes",
        "test_golden::test_a_newer_log_is_refused_by_name",
    ),
    # determinism
    "F17": "test_faults::test_f17_hash_seed_time_zone_and_locale_change_nothing",
    "F18": "test_faults::test_f18_a_clock_that_jumps_moves_no_order",
    "F19": "test_engine::test_a_million_commands",
    "F20": "test_faults::test_f20_a_replay_stopped_anywhere_has_the_live_hash",
    # matching and auction
    "F21": "not: there is no auction yet, so there is no uncross to flood",
    "F22": "test_engine::test_batches_do_not_matter",  # nothing comes between a sweep's trades
    "F23": "test_engine_precedence::test_precedence",  # no state guards a cancel
    "F24": "not: there are no stops yet",
    "F25": "not: there are no mass quotes yet; after a kill only cancels pass (rejects.md, 109)",
    # network and session
    "F26": "test_clients_live::test_an_order_in_flight_when_the_wire_is_cut_exists_once",
    "F27": "test_engine_rules::test_a_repeated_command_repeats_its_first_answer",
    "F28": "test_clients_live::test_orders_are_cancelled_after_the_grace_time",
    "F29": "test_gateway_sockets::test_a_reader_that_stops_is_evicted_and_others_are_not_b30",
    "F30": "test_clients_book::test_whatever_the_wire_does_a_live_book_is_true",
    "F31": (
        "not: no test opens a thousand connections at once; bad logons are counted and throttled",
        "test_auth::test_a_lock_is_of_one_address_and_ends",
    ),
    "F32": "test_gateway_sockets::test_many_orders_in_flight_come_back_in_order",
    "F33": "test_operations::test_a_stop_reports_what_was_queued_and_refuses_the_rest",
    "F34": "test_engine_capacity::test_orders_and_a_book",
    # clearing and ledger
    "F35": (
        "test_clearing::test_killed_at_any_moment_it_goes_on_where_it_was",
        "test_settlement::test_a_cycle_that_stopped_anywhere_is_finished_once",
        "test_cycles::test_a_cycle_killed_after_any_step_is_finished_once",
        "test_cycles::test_a_market_killed_anywhere_pays_its_cycle_once",
        "test_settlement::test_a_transaction_cut_anywhere_leaves_all_or_nothing",
        "test_apart::test_a_process_killed_at_every_batch_books_each_once",
        "test_apart_served::test_five_dates_and_a_default_killed_at_every_step",
    ),
    "F36": (
        "test_app::test_the_day_is_settled_once_and_the_next_one_opens",
        "test_settlement::test_a_settled_day_changes_by_a_correction_alone",
    ),
    "F37": (
        "test_defaults::test_a_default_from_the_declaration_to_the_last_cent",
        "test_defaults::test_whatever_the_loss_its_layers_are_the_loss",
        "test_apart::test_a_process_killed_at_every_batch_books_each_once",
    ),
    "F38": (
        "test_settlement::test_a_trade_busted_after_a_cycle_leaves_its_entries_and_nothing_else",
        "test_engine_corrections::test_a_bust_after_an_intraday_settlement_gives_the_variation_back",
        "test_corrections::test_a_bust_takes_two_people_and_puts_the_books_back",
    ),
    "F39": (
        "test_members::test_a_give_up_needs_both_clearing_members",
        "test_members::test_a_give_up_refused_or_timed_out_moves_nothing_ever",
    ),
    "F40": (
        "test_deliveries::test_a_leg_that_fails_takes_the_other_with_it",
        "test_deliveries::test_where_the_sides_differ_the_hold_is_voided_and_the_house_decides",
    ),
    "F41": (
        "test_sequencer::test_a_restart_by_replay_is_the_same_market",  # SET_RISK is a command
        "test_margin_market::test_versions_come_by_the_log_and_into_force_on_their_date",
    ),
    "F42": "test_app::test_a_deleted_ledger_is_rebuilt_to_the_same_balances",
    "F43": (
        "test_engine_rules::test_money_beyond_64_bits_stops_the_machine",
        "test_contract_files::test_the_largest_position_at_the_largest_price_fits_in_an_amount",
    ),
    # operations
    "F44": "not: gateway and engine are one process with one configuration",
    "F45": "test_app::test_clearing_that_lags_makes_the_market_cancel_only",
    "F46": "not: no feature has a switch yet; halts and cancel-only act at once",
    "F47": "test_faults::test_f47_a_copy_of_the_directory_is_the_same_market",
    "F48": "not: there is no standby that is promoted yet; a second process is refused by the lock",
    "F49": "test_faults::test_f18_a_clock_that_jumps_moves_no_order",
    "F50": "test_faults::test_f50_a_disk_nearly_full_raises_an_alarm",
    "F51": "not: an hour is no test; `hourbook bench soak` runs it, judges it and draws it",
    "F52": (
        "test_linearizable::test_a_true_history_is_accepted",
        "test_linearizable::test_a_lie_is_refused",
        "test_sim::test_everything_holds_and_the_same_seed_gives_the_same_bytes",
        "test_crash::test_a_server_killed_under_load_loses_and_doubles_nothing",
    ),
    "F53": (
        "test_sim::test_everything_holds_and_the_same_seed_gives_the_same_bytes",
        "test_sim::test_the_storms_were_storms",
        "test_sim::test_a_bug_put_in_on_purpose_is_found",
        "test_sim_disk::test_a_power_cut_takes_what_was_not_synced_in_sectors",
    ),
}
