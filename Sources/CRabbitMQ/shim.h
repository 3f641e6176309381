#ifndef SLIPWAY_CRABBITMQ_SHIM_H
#define SLIPWAY_CRABBITMQ_SHIM_H
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <amqp_ssl_socket.h>
#include <amqp_framing.h>
#include <sys/time.h>

// Logging in takes its credentials as variadic arguments, which Swift cannot pass.
static inline amqp_rpc_reply_t crabbitmq_login_plain(amqp_connection_state_t state, const char *vhost, int channel_max,
                                                     int frame_max, int heartbeat, const amqp_table_t *properties,
                                                     const char *user, const char *password) {
    return amqp_login_with_properties(state, vhost, channel_max, frame_max, heartbeat, properties,
                                      AMQP_SASL_METHOD_PLAIN, user, password);
}

// The identifiers of methods are macros with casts, which the importer leaves out.
static const amqp_method_number_t crabbitmq_connection_close = AMQP_CONNECTION_CLOSE_METHOD;
static const amqp_method_number_t crabbitmq_connection_close_ok = AMQP_CONNECTION_CLOSE_OK_METHOD;
static const amqp_method_number_t crabbitmq_connection_blocked = AMQP_CONNECTION_BLOCKED_METHOD;
static const amqp_method_number_t crabbitmq_connection_unblocked = AMQP_CONNECTION_UNBLOCKED_METHOD;
static const amqp_method_number_t crabbitmq_channel_open = AMQP_CHANNEL_OPEN_METHOD;
static const amqp_method_number_t crabbitmq_channel_open_ok = AMQP_CHANNEL_OPEN_OK_METHOD;
static const amqp_method_number_t crabbitmq_channel_close = AMQP_CHANNEL_CLOSE_METHOD;
static const amqp_method_number_t crabbitmq_channel_close_ok = AMQP_CHANNEL_CLOSE_OK_METHOD;
static const amqp_method_number_t crabbitmq_channel_flow = AMQP_CHANNEL_FLOW_METHOD;
static const amqp_method_number_t crabbitmq_channel_flow_ok = AMQP_CHANNEL_FLOW_OK_METHOD;
static const amqp_method_number_t crabbitmq_exchange_declare = AMQP_EXCHANGE_DECLARE_METHOD;
static const amqp_method_number_t crabbitmq_exchange_delete = AMQP_EXCHANGE_DELETE_METHOD;
static const amqp_method_number_t crabbitmq_queue_declare = AMQP_QUEUE_DECLARE_METHOD;
static const amqp_method_number_t crabbitmq_queue_declare_ok = AMQP_QUEUE_DECLARE_OK_METHOD;
static const amqp_method_number_t crabbitmq_queue_bind = AMQP_QUEUE_BIND_METHOD;
static const amqp_method_number_t crabbitmq_queue_bind_ok = AMQP_QUEUE_BIND_OK_METHOD;
static const amqp_method_number_t crabbitmq_queue_unbind = AMQP_QUEUE_UNBIND_METHOD;
static const amqp_method_number_t crabbitmq_queue_delete = AMQP_QUEUE_DELETE_METHOD;
static const amqp_method_number_t crabbitmq_queue_delete_ok = AMQP_QUEUE_DELETE_OK_METHOD;
static const amqp_method_number_t crabbitmq_basic_qos = AMQP_BASIC_QOS_METHOD;
static const amqp_method_number_t crabbitmq_basic_consume = AMQP_BASIC_CONSUME_METHOD;
static const amqp_method_number_t crabbitmq_basic_consume_ok = AMQP_BASIC_CONSUME_OK_METHOD;
static const amqp_method_number_t crabbitmq_basic_cancel = AMQP_BASIC_CANCEL_METHOD;
static const amqp_method_number_t crabbitmq_basic_cancel_ok = AMQP_BASIC_CANCEL_OK_METHOD;
static const amqp_method_number_t crabbitmq_basic_return = AMQP_BASIC_RETURN_METHOD;
static const amqp_method_number_t crabbitmq_basic_deliver = AMQP_BASIC_DELIVER_METHOD;
static const amqp_method_number_t crabbitmq_basic_ack = AMQP_BASIC_ACK_METHOD;
static const amqp_method_number_t crabbitmq_basic_nack = AMQP_BASIC_NACK_METHOD;
static const amqp_method_number_t crabbitmq_confirm_select = AMQP_CONFIRM_SELECT_METHOD;

// So are the kinds of frames and fields, as far as their types differ from where they are compared.
static const uint8_t crabbitmq_frame_method = AMQP_FRAME_METHOD;
static const uint8_t crabbitmq_frame_header = AMQP_FRAME_HEADER;
static const uint8_t crabbitmq_frame_body = AMQP_FRAME_BODY;
static const uint8_t crabbitmq_field_boolean = AMQP_FIELD_KIND_BOOLEAN;
static const uint8_t crabbitmq_field_i64 = AMQP_FIELD_KIND_I64;
static const uint8_t crabbitmq_field_utf8 = AMQP_FIELD_KIND_UTF8;
static const uint8_t crabbitmq_field_array = AMQP_FIELD_KIND_ARRAY;
static const uint8_t crabbitmq_field_table = AMQP_FIELD_KIND_TABLE;
#endif
