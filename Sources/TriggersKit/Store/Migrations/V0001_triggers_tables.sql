-- SPDX-License-Identifier: MPL-2.0

create table triggers.runs (
    id            bigint generated always as identity primary key,
    trigger       text not null,
    subject       text not null,
    hook_group_id text not null,
    hook_id       text not null,
    facts         json not null,
    origin        text not null,
    state         text not null default 'waiting'
        check (state in ('waiting', 'firing', 'fired', 'declined', 'skipped')),
    looks         integer not null default 0,
    failures      integer not null default 0,
    firings       integer not null default 0,
    lease         integer not null default 0,
    reason        text,
    task_id       text,
    due           timestamptz not null default now(),
    created       timestamptz not null default now(),
    settled       timestamptz,
    unique (trigger, subject)
);
comment on table triggers.runs is
    'What was observed and is to trigger a hook, once for each trigger and subject (a diff, a task group, a commit). '
    'waiting: to be looked at when due; firing: its fire is in hooks.fires under the number of firings; the others are '
    'settled. lease fences: whoever took a row later has a higher one. looks counts those at things not visible yet.';
create index runs_due on triggers.runs (due) where state in ('waiting', 'firing');
create index runs_newest on triggers.runs (trigger, id desc);
create index runs_settled on triggers.runs (settled) where settled is not null;

create table triggers.tasks (
    task_id       text primary key,
    run_id        bigint not null references triggers.runs on delete cascade,
    hook_group_id text not null,
    hook_id       text not null,
    state         text,
    made          timestamptz not null default now(),
    next_look     timestamptz not null default now(),
    ended         timestamptz,
    reported      boolean not null default false
);
comment on table triggers.tasks is
    'Tasks that triggers made, and how they ended; those that ended are told in the next report.';
create index tasks_open on triggers.tasks (next_look) where ended is null;
create index tasks_unreported on triggers.tasks (hook_group_id, hook_id) where ended is not null and not reported;
create index tasks_run on triggers.tasks (run_id);

create table triggers.places (
    name      text primary key,
    last_id   bigint,
    failures  integer not null default 0,
    error     text,
    looked    timestamptz,
    next_look timestamptz not null default now()
);
comment on table triggers.places is
    'What one process does at a time: reading a source from last_id on, asking for the states of tasks, reporting. '
    'next_look is also the end of the lease of who looks now.';

create table triggers.dead_letters (
    letter_id   bigint generated always as identity primary key,
    trigger     text not null,
    received    timestamptz not null default now(),
    times       integer not null default 1,
    error       text not null,
    exchange    text not null,
    routing_key text not null,
    cc          text[] not null default '{}',
    message_id  text,
    body        bytea not null,
    digest      bytea not null,
    replayed    timestamptz,
    unique (trigger, digest)
);
comment on table triggers.dead_letters is 'Messages that a trigger could not read, each once.';
create index dead_letters_newest on triggers.dead_letters (trigger, letter_id desc);
create index dead_letters_received on triggers.dead_letters (received);

create table triggers.unread (
    trigger    text not null,
    digest     bytea not null,
    deliveries integer not null default 1,
    last       timestamptz not null default now(),
    primary key (trigger, digest)
);
comment on table triggers.unread is 'How often a message was delivered that could not be read.';

create table triggers.notices (
    id bigint generated always as identity primary key,
    dedup_key text not null unique,
    channel text not null,
    target text not null,
    subject text not null,
    body text not null,
    document json not null,
    state text not null default 'pending',
    attempts integer not null default 0,
    next_try timestamptz not null default now(),
    created timestamptz not null default now(),
    sent timestamptz,
    error text,
    digest_seconds integer,
    held boolean not null default false
);
comment on table triggers.notices is 'Reports that wait for their delivery.';
create index notices_due on triggers.notices (next_try) where state = 'pending';
create index notices_created on triggers.notices (created) where state <> 'pending';

create sequence triggers.reports;
comment on sequence triggers.reports is 'Tells reports apart.';
