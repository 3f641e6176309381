#ifndef SLIPWAY_CRABBITMQ_SHIM_H
#define SLIPWAY_CRABBITMQ_SHIM_H
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <amqp_ssl_socket.h>
#include <amqp_framing.h>
#endif
