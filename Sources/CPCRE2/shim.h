#ifndef SLIPWAY_CPCRE2_SHIM_H
#define SLIPWAY_CPCRE2_SHIM_H
/* The library for UTF-8; its functions are those that end in _8. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif
