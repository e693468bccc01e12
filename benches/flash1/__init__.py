"""The core behind the C interface of the flash1 matching-engine benchmark."""
