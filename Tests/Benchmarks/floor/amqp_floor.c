// SPDX-License-Identifier: MPL-2.0
//
// How fast a plain C loop over librabbitmq consumes and acknowledges: the floor our consumer is compared with.
//
//     cc -O2 amqp_floor.c -o amqp_floor -lrabbitmq
//     AMQP_URL=amqp://user:password@host:port/vhost ./amqp_floor MESSAGES PREFETCH [ACK_EVERY]
//
// Fills a quorum queue of its own with persistent messages of 200 bytes, takes the time from the first delivery to the last
// acknowledgement, removes the queue, and prints messages per second and client CPU microseconds per message.

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void stop(const char *what) {
    fprintf(stderr, "amqp_floor: %s failed\n", what);
    exit(1);
}

static void expect(amqp_connection_state_t link, const char *what) {
    if (amqp_get_rpc_reply(link).reply_type != AMQP_RESPONSE_NORMAL) stop(what);
}

static double wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
        + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void fill(amqp_connection_state_t link, amqp_bytes_t queue, int messages) {
    char body[200];
    memset(body, 'x', sizeof body);
    amqp_basic_properties_t properties;
    memset(&properties, 0, sizeof properties);
    properties._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_CONTENT_TYPE_FLAG;
    properties.delivery_mode = 2;
    properties.content_type = amqp_cstring_bytes("application/json");
    amqp_confirm_select(link, 1);
    expect(link, "confirm.select");
    uint64_t confirmed = 0;
    for (int sent = 0; sent < messages || confirmed < (uint64_t)messages;) {
        if (sent < messages && (uint64_t)sent - confirmed < 256) {
            amqp_bytes_t bytes = {sizeof body, body};
            if (amqp_basic_publish(link, 1, amqp_empty_bytes, queue, 0, 0, &properties, bytes)) stop("publish");
            sent++;
            continue;
        }
        amqp_frame_t frame;
        amqp_maybe_release_buffers(link);
        if (amqp_simple_wait_frame(link, &frame)) stop("waiting for confirms");
        if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) continue;
        amqp_basic_ack_t *ack = frame.payload.method.decoded;
        // Single confirms may overtake each other; counting is enough unless they cover several.
        confirmed = ack->multiple ? ack->delivery_tag : confirmed + 1;
    }
}

int main(int count, char **words) {
    if (count < 3 || !getenv("AMQP_URL")) {
        fprintf(stderr, "usage: AMQP_URL=amqp://… amqp_floor MESSAGES PREFETCH [ACK_EVERY]\n");
        return 2;
    }
    int messages = atoi(words[1]), prefetch = atoi(words[2]), every = count > 3 ? atoi(words[3]) : 1;
    char url[1024];
    snprintf(url, sizeof url, "%s", getenv("AMQP_URL"));
    struct amqp_connection_info place;
    if (amqp_parse_url(url, &place)) stop("reading AMQP_URL");

    amqp_connection_state_t link = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(link);
    if (!socket || amqp_socket_open(socket, place.host, place.port)) stop("connecting");
    amqp_rpc_reply_t reply =
        amqp_login(link, place.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, place.user, place.password);
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) stop("login");
    amqp_channel_open(link, 1);
    expect(link, "channel.open");

    char name[512];
    snprintf(name, sizeof name, "queue/%s/floor-%d", place.user, (int)getpid());
    amqp_bytes_t queue = amqp_cstring_bytes(name);
    amqp_table_entry_t kind;
    kind.key = amqp_cstring_bytes("x-queue-type");
    kind.value.kind = AMQP_FIELD_KIND_UTF8;
    kind.value.value.bytes = amqp_cstring_bytes("quorum");
    amqp_table_t arguments = {1, &kind};
    amqp_queue_declare(link, 1, queue, 0, 1, 0, 0, arguments);
    expect(link, "queue.declare");
    fill(link, queue, messages);

    amqp_channel_open(link, 2);
    expect(link, "channel.open");
    amqp_basic_qos(link, 2, 0, (uint16_t)prefetch, 0);
    expect(link, "basic.qos");
    amqp_basic_consume(link, 2, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    expect(link, "basic.consume");

    double start = 0, cpuStart = 0;
    for (int got = 0; got < messages; got++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(link);
        if (amqp_consume_message(link, &envelope, NULL, 0).reply_type != AMQP_RESPONSE_NORMAL) stop("consuming");
        if (got == 0) {
            start = wall();
            cpuStart = cpu();
        }
        if ((got + 1) % every == 0 || got + 1 == messages) {
            if (amqp_basic_ack(link, 2, envelope.delivery_tag, every > 1)) stop("acknowledging");
        }
        amqp_destroy_envelope(&envelope);
    }
    double seconds = wall() - start, used = cpu() - cpuStart;
    amqp_queue_delete(link, 1, queue, 0, 0);
    amqp_connection_close(link, 200);
    amqp_destroy_connection(link);
    printf("%.0f msg/s %.2f cpu_us/msg\n", messages / seconds, used * 1e6 / messages);
    return 0;
}
