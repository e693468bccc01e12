"""Other venues' protocols on top of the native one, each confined to its folder."""
