// SPDX-License-Identifier: MPL-2.0
//
// How fast a plain C program over libpq takes tasks through the queue's SQL: the floor our queue store is compared with.
//
//     cc -O2 queue_floor.c -o queue_floor -lpq -lpthread
//     QUEUE_DATABASE_URL=postgres://… ./queue_floor CONNECTIONS SECONDS
//
// Each thread has one connection and repeats: create a task (one round trip), claim one (two), complete it (two), with
// the statements of the queue store prepared once and sent in pipelines. Prints completed tasks per second.

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COLUMNS                                                                                                        \
    "t.task_id, t.task_queue_id, t.scheduler_id, t.project_id, t.task_group_id, t.priority, t.deadline, t.expires, "   \
    "t.retries, t.routes, t.tags, s.retries_left, s.runs, s.ever_resolved"

enum { GROUP, CREATE, PICK, TAKE, LOCK, CHANGE, RELEASE, RESOLVE, ANNOUNCE, STATEMENTS };

static const char *sql[STATEMENTS] = {
    [GROUP] = "insert into tcl.groups (task_group_id, scheduler_id, created) values ($1, $2, $3) on conflict do nothing",
    [CREATE] =
        "with allowed as (select from tcl.groups where task_group_id = $1 and scheduler_id = $2 and sealed is null"
        "), task as ("
        "  insert into tcl.tasks (task_id, task_queue_id, scheduler_id, project_id, task_group_id, priority, retries,"
        "    deadline, expires, routes, tags, definition)"
        "  select $3::text, $4::text, $2::text, $5::text, $1::text, $6::smallint, $7::smallint, $8::timestamptz,"
        "    $9::timestamptz, $10::text[], $11::json, $12::json from allowed"
        "  on conflict (task_id) do nothing returning task_id"
        "), status as ("
        "  insert into tcl.task_status (task_id, task_group_id, state, retries_left, runs)"
        "  select task_id, $1::text, 'pending', $7::smallint, $13::json from task"
        "), due as (insert into tcl.deadlines (task_id, due) select task_id, $8::timestamptz from task"
        "), waiting as ("
        "  insert into tcl.pending (task_id, run_id, task_queue_id, priority, deadline, inserted)"
        "  select task_id, 0, $4::text, $6::smallint, $8::timestamptz, $14::timestamptz from task"
        "), news as ("
        "  insert into tcl.outbox (exchange, routing_key, cc, body) select m.exchange, m.routing_key, $10::text[], m.body"
        "  from task, (values (0, $15::text, $16::text, $17::text), (1, $18::text, $16::text, $17::text))"
        "    as m (position, exchange, routing_key, body) order by m.position"
        ") select exists (select from task) as inserted",
    [PICK] =
        "select " COLUMNS ", p.run_id, p.seq, t.definition::text as definition"
        " from tcl.pending p join tcl.task_status s on s.task_id = p.task_id join tcl.tasks t on t.task_id = p.task_id"
        " where p.task_queue_id = $1 and p.deadline > $2 and not exists ("
        "   select from tcl.workers w where w.task_queue_id = $1 and w.worker_group = $3 and w.worker_id = $4"
        "     and w.quarantine_until > $2)"
        " order by p.priority desc, p.seq limit $5 for update of p, s skip locked",
    [TAKE] =
        "with c as ("
        "  select * from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::bigint[], $6::bigint[])"
        "    as c (task_id, run_id, runs, claim_id, priority, seq)"
        "), gone as (delete from tcl.pending p using c where p.task_id = c.task_id and p.run_id = c.run_id"
        "), changed as ("
        "  update tcl.task_status s set state = 'running', runs = c.runs::json from c where s.task_id = c.task_id"
        ") insert into tcl.claims (task_id, run_id, task_queue_id, worker_group, worker_id, claim_id, taken_until, claimed,"
        "    priority, seq)"
        "  select task_id, run_id, $7::text, $8::text, $9::text, claim_id, $10::timestamptz, $11::timestamptz, priority, seq"
        "  from c",
    [LOCK] = "select " COLUMNS " from tcl.task_status s join tcl.tasks t on t.task_id = s.task_id"
             " where s.task_id = $1 for update of s",
    [CHANGE] = "update tcl.task_status set state = $2, retries_left = $3, runs = $4::json,"
               " ever_resolved = ever_resolved or $5 where task_id = $1",
    [RELEASE] = "delete from tcl.claims where task_id = $1 and run_id = $2",
    [RESOLVE] = "insert into tcl.resolutions (task_id, task_group_id, state, resolved) values ($1, $2, $3, $4)",
    [ANNOUNCE] = "insert into tcl.outbox (exchange, routing_key, cc, body) values ($1, $2, $3, $4)",
};
static const int parameters[STATEMENTS] = {3, 18, 5, 11, 1, 5, 2, 4, 4};

static const char *queue = "bench/floor", *scheduler = "-", *worker = "floor-worker";
static const char *soon = "2099-01-01T00:00:00.000Z", *now = "2026-01-01T00:00:00.000Z";
static const char *key = "primary.AAAAAAAAAAAAAAAAAAAAAA.0.bench.floor-worker.bench.floor.-.AAAAAAAAAAAAAAAAAAAAAA._";
static char definition[1024], runs[512], message[2048];
static double limit;
static atomic_long completed;

static double wall(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void stop(PGconn *link, const char *what) {
    fprintf(stderr, "queue_floor: %s failed: %s", what, PQerrorMessage(link));
    exit(1);
}

static void filler(char *text, size_t length) {
    memset(text, 'x', length);
    memcpy(text, "{\"filler\":\"", 11);
    memcpy(text + length - 2, "\"}", 3);
}

static void put(PGconn *link, int statement, const char *const *values) {
    char name[8];
    snprintf(name, sizeof name, "s%d", statement);
    if (!PQsendQueryPrepared(link, name, parameters[statement], values, NULL, NULL, 0)) stop(link, name);
}

static void say(PGconn *link, const char *text) {
    if (!PQsendQueryPrepared(link, text, 0, NULL, NULL, NULL, 0)) stop(link, text);
}

// Ends a pipeline of `count` statements; returns the answer that has rows, if any.
static PGresult *finish(PGconn *link, int count) {
    PGresult *rows = NULL;
    if (!PQpipelineSync(link)) stop(link, "sync");
    for (int index = 0; index < count; index++) {
        PGresult *result;
        while ((result = PQgetResult(link))) {
            ExecStatusType status = PQresultStatus(result);
            if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) stop(link, "statement");
            if (status == PGRES_TUPLES_OK && !rows) rows = result;
            else PQclear(result);
        }
    }
    PGresult *end = PQgetResult(link);
    if (PQresultStatus(end) != PGRES_PIPELINE_SYNC) stop(link, "end of pipeline");
    PQclear(end);
    return rows;
}

static void *work(void *argument) {
    int number = *(int *)argument;
    PGconn *link = PQconnectdb(getenv("QUEUE_DATABASE_URL"));
    if (PQstatus(link) != CONNECTION_OK) stop(link, "connecting");
    for (int index = 0; index < STATEMENTS; index++) {
        char name[8];
        snprintf(name, sizeof name, "s%d", index);
        PGresult *result = PQprepare(link, name, sql[index], 0, NULL);
        if (PQresultStatus(result) != PGRES_COMMAND_OK) stop(link, "preparing");
        PQclear(result);
    }
    PQclear(PQprepare(link, "begin", "begin", 0, NULL));
    PQclear(PQprepare(link, "commit", "commit", 0, NULL));
    if (!PQenterPipelineMode(link)) stop(link, "pipeline mode");

    char id[40];
    for (long turn = 0; wall() < limit; turn++) {
        snprintf(id, sizeof id, "floor-%02d-%012ld", number, turn);
        put(link, GROUP, (const char *[]){id, scheduler, now});
        put(link, CREATE, (const char *[]){id, scheduler, id, queue, "none", "1", "5", soon, soon, "{}", "{}", definition,
                                           runs, now, "exchange/bench/v1/task-defined", key, message,
                                           "exchange/bench/v1/task-pending"});
        PQclear(finish(link, 2));

        say(link, "begin");
        put(link, PICK, (const char *[]){queue, now, "bench", worker, "1"});
        PGresult *picked = finish(link, 2);
        char found[48] = "", place[32] = "";
        if (PQntuples(picked) > 0) {
            snprintf(found, sizeof found, "%s", PQgetvalue(picked, 0, 0));
            snprintf(place, sizeof place, "{%s}", PQgetvalue(picked, 0, 15));
        }
        PQclear(picked);
        if (!*found) {
            say(link, "commit");
            PQclear(finish(link, 1));
            continue;
        }
        char list[64], quoted[600], claim[64];
        snprintf(list, sizeof list, "{%s}", found);
        snprintf(claim, sizeof claim, "{c%s}", found);
        quoted[0] = '{', quoted[1] = '"';
        size_t end = 2;
        for (const char *from = runs; *from; from++) {
            if (*from == '"') quoted[end++] = '\\';
            quoted[end++] = *from;
        }
        memcpy(quoted + end, "\"}", 3);
        put(link, TAKE, (const char *[]){list, "{0}", quoted, claim, "{1}", place, queue, "bench", worker, soon, now});
        put(link, ANNOUNCE, (const char *[]){"exchange/bench/v1/task-running", key, "{}", message});
        say(link, "commit");
        PQclear(finish(link, 3));

        say(link, "begin");
        put(link, LOCK, (const char *[]){found});
        PQclear(finish(link, 2));
        put(link, CHANGE, (const char *[]){found, "completed", "5", runs, "t"});
        put(link, RELEASE, (const char *[]){found, "0"});
        put(link, RESOLVE, (const char *[]){found, found, "completed", now});
        put(link, ANNOUNCE, (const char *[]){"exchange/bench/v1/task-completed", key, "{}", message});
        say(link, "commit");
        PQclear(finish(link, 5));
        atomic_fetch_add(&completed, 1);
    }
    PQfinish(link);
    return NULL;
}

int main(int count, char **words) {
    if (count != 3 || !getenv("QUEUE_DATABASE_URL")) {
        fprintf(stderr, "usage: QUEUE_DATABASE_URL=postgres://… queue_floor CONNECTIONS SECONDS\n");
        return 2;
    }
    int threads = atoi(words[1]);
    double seconds = atof(words[2]), start = wall();
    // As long as what our store writes for the same task.
    filler(definition, 500);
    filler(message, 500);
    snprintf(runs, sizeof runs,
             "[{\"runId\":0,\"state\":\"running\",\"reasonCreated\":\"scheduled\",\"scheduled\":\"%s\",\"workerGroup\":"
             "\"bench\",\"workerId\":\"%s\",\"takenUntil\":\"%s\",\"started\":\"%s\"}]",
             now, worker, soon, now);
    limit = start + seconds;
    pthread_t ids[256];
    int numbers[256];
    if (threads < 1 || threads > 256) return 2;
    for (int index = 0; index < threads; index++) {
        numbers[index] = index;
        pthread_create(&ids[index], NULL, work, &numbers[index]);
    }
    for (int index = 0; index < threads; index++) pthread_join(ids[index], NULL);
    printf("%.0f\n", (double)completed / (wall() - start));
    return 0;
}
