#ifndef SLIPWAY_CLINUX_SHIM_H
#define SLIPWAY_CLINUX_SHIM_H
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>
#endif
