cpdef bytes pack_command(
    unsigned char kind, unsigned char side, unsigned char tif, unsigned char flags,
    unsigned int instrument, unsigned int account, unsigned int session,
    long long price, unsigned int quantity, unsigned char stp, unsigned char features,
    bytes target, bytes key,
)
