#ifndef SLIPWAY_CZLIB_SHIM_H
#define SLIPWAY_CZLIB_SHIM_H
#include <zlib.h>

/* deflateInit2 is a macro, which Swift does not import: a gzip stream of the default level. */
static inline int czlib_deflate_init_gzip(z_streamp stream, int level) {
    return deflateInit2(stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
}

/* inflateInit2 is a macro as well: reads gzip members. */
static inline int czlib_inflate_init_gzip(z_streamp stream) { return inflateInit2(stream, 15 + 16); }

/* The same for the zlib format, which HTTP calls deflate. */
static inline int czlib_inflate_init_zlib(z_streamp stream) { return inflateInit2(stream, 15); }
#endif
