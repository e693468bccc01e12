"""Other venues' protocols over the native one: a folder each, and none is known outside it."""
