-- SPDX-License-Identifier: MPL-2.0

create table roller.outbox (
    id bigint generated always as identity primary key,
    exchange text not null,
    routing_key text not null,
    cc text[] not null default '{}',
    body text not null,
    created timestamptz not null default now()
);
comment on table roller.outbox is 'messages committed with a change and not yet confirmed by the broker';

-- Inventory ---------------------------------------------------------------------------------------------------------

create table roller.machines (
    id                uuid primary key default gen_random_uuid(),
    name              text not null,
    fqdn              text,
    ip                text,
    kind              text not null default 'physical' check (kind in ('physical', 'vm', 'blade')),
    hw_model          text,
    os                text,
    mac               text,
    state             text not null default 'active' check (state in ('active', 'maintenance', 'loaned', 'retired')),
    state_reason      text,
    state_until       timestamptz,
    bug_cc            text,
    boot_seconds_hint int,
    properties        jsonb not null default '{}',
    created           timestamptz not null default now(),
    updated           timestamptz not null default now()
);
create unique index machines_name on roller.machines (lower(name));
create unique index machines_fqdn on roller.machines (lower(fqdn)) where fqdn is not null;

create table roller.machine_aliases (
    alias_lower text primary key,
    alias       text not null,
    machine     uuid not null references roller.machines on delete cascade
);
create index machine_aliases_machine on roller.machine_aliases (machine);

create table roller.groups (
    name       text primary key,
    priority   int not null default 0,
    properties jsonb not null default '{}'
);
comment on table roller.groups is
    'Properties of a group hold for its machines; a group of higher priority wins, the machine itself wins over all.';

create table roller.machine_groups (
    machine    uuid not null references roller.machines on delete cascade,
    group_name text not null references roller.groups on delete cascade on update cascade,
    primary key (machine, group_name)
);
create index machine_groups_group on roller.machine_groups (group_name);

create table roller.controllers (
    id              uuid primary key default gen_random_uuid(),
    name            text not null,
    kind            text not null,
    address         text,
    port            int,
    type            text,
    options         jsonb not null default '{}',
    credential_ref  text,
    pool            text not null default 'default',
    max_concurrency int not null default 4,
    min_interval_ms int not null default 0,
    busy_until      timestamptz,
    learned         jsonb not null default '{}'
);
create unique index controllers_name on roller.controllers (lower(name));
comment on table roller.controllers is
    'What turns machines on and off. Secrets are elsewhere: credential_ref names them. busy_until keeps callers apart '
    'by min_interval_ms; learned is what workers found out, such as the cipher suite that works.';

create table roller.machine_controls (
    id          bigint generated always as identity primary key,
    machine     uuid not null references roller.machines on delete cascade,
    controller  uuid not null references roller.controllers on delete cascade,
    locator     jsonb not null default '{}',
    locator_key text not null,
    priority    int not null default 0,
    feed_group  text
);
create unique index machine_controls_place on roller.machine_controls (controller, locator_key)
    where feed_group is null;
create index machine_controls_machine on roller.machine_controls (machine);
comment on table roller.machine_controls is
    'How a machine hangs on a controller. locator_key is the locator in one spelling: no two machines share a place, '
    'unless several places feed one machine and say so by feed_group.';

create table roller.tc_workers (
    id             bigint generated always as identity primary key,
    provisioner_id text,
    worker_type    text,
    worker_group   text,
    worker_id      text not null check (worker_id = lower(worker_id))
);
create unique index tc_workers_names on roller.tc_workers
    (worker_id, coalesce(worker_group, ''), coalesce(provisioner_id, ''), coalesce(worker_type, ''));

create table roller.worker_machines (
    worker  bigint not null references roller.tc_workers on delete cascade,
    machine uuid not null references roller.machines on delete cascade,
    primary key (worker, machine)
);
create index worker_machines_machine on roller.worker_machines (machine);

create table roller.maintenance_windows (
    id         bigint generated always as identity primary key,
    machine    uuid references roller.machines on delete cascade,
    group_name text references roller.groups on delete cascade on update cascade,
    starts     timestamptz not null,
    ends       timestamptz not null check (ends > starts),
    reason     text not null,
    created_by text not null,
    created    timestamptz not null default now(),
    check (machine is null or group_name is null)
);
create index maintenance_windows_ends on roller.maintenance_windows (ends);
comment on table roller.maintenance_windows is
    'While a window is open nothing destructive is done to its machine, or to the machines of its group; a window of '
    'neither is for all.';

create table roller.loans (
    id       bigint generated always as identity primary key,
    machine  uuid not null references roller.machines on delete cascade,
    borrower text not null,
    bug      text,
    since    timestamptz not null default now(),
    until    timestamptz,
    returned timestamptz
);
create unique index loans_open on roller.loans (machine) where returned is null;

-- Jobs --------------------------------------------------------------------------------------------------------------

create sequence roller.fences;
comment on sequence roller.fences is 'Every claim takes the next number; whoever holds a smaller one is too late.';

create table roller.jobs (
    id               uuid primary key,
    task_name        text not null,
    params           jsonb not null default '{}',
    machine          uuid references roller.machines on delete set null,
    tc_worker        bigint references roller.tc_workers on delete set null,
    worker_id        text not null,
    worker_group     text,
    provisioner_id   text,
    worker_type      text,
    client_id        text not null,
    http_origin      text,
    source           text not null,
    dry_run          boolean not null default false,
    is_destructive   boolean not null,
    is_read_only     boolean not null,
    state            text not null default 'queued' check (state in ('queued', 'waiting', 'claimed', 'running',
        'verifying', 'succeeded', 'failed', 'canceled', 'expired', 'lost')),
    reason           text,
    error_class      text,
    priority         int not null default 50,
    pool             text not null default 'default',
    created          timestamptz not null default clock_timestamp(),
    not_before       timestamptz not null default clock_timestamp(),
    deadline         timestamptz,
    claimed          timestamptz,
    started          timestamptz,
    finished         timestamptz,
    runner           text,
    fence            bigint not null default 0,
    lease_until      timestamptz,
    attempts         int not null default 0,
    cancel_requested timestamptz,
    cancel_by        text,
    waiting_for      text,
    result           jsonb,
    bug_url          text,
    idempotency_key  text,
    duplicate_key    text,
    parent_job       uuid,
    updated          timestamptz not null default clock_timestamp()
);
comment on column roller.jobs.attempts is 'how often the job was claimed';
comment on column roller.jobs.duplicate_key is
    'Machine, task and parameters in one text while a second request for the same joins this job; null otherwise.';
create unique index jobs_duplicates on roller.jobs (duplicate_key)
    where duplicate_key is not null and state in ('queued', 'waiting', 'claimed', 'running', 'verifying');
create unique index jobs_idempotency on roller.jobs (client_id, idempotency_key) where idempotency_key is not null;
create index jobs_claimable on roller.jobs (pool, priority desc, created) where state in ('queued', 'waiting');
create index jobs_leases on roller.jobs (lease_until) where state in ('claimed', 'running', 'verifying');
create index jobs_newest on roller.jobs (created desc, id desc);
create index jobs_machine on roller.jobs (machine, created desc, id desc);
create index jobs_worker on roller.jobs (worker_id, created desc, id desc);
create index jobs_client on roller.jobs (client_id, created desc, id desc);
create index jobs_task on roller.jobs (task_name, created desc, id desc);
create index jobs_state on roller.jobs (state, created desc, id desc);
create index jobs_active on roller.jobs (machine)
    where is_destructive and state in ('claimed', 'running', 'verifying');

create table roller.job_attempts (
    job         uuid not null references roller.jobs on delete cascade,
    n           int not null,
    method      text not null,
    control     text,
    arguments   text[] not null default '{}',
    started     timestamptz not null default clock_timestamp(),
    finished    timestamptz,
    exit_code   int,
    outcome     text check (outcome in ('ok', 'failed', 'timeout', 'refused', 'skipped', 'unverified')),
    error_class text,
    summary     text,
    output      text,
    primary key (job, n)
);

create table roller.job_events (
    id   bigint generated always as identity primary key,
    job  uuid not null references roller.jobs on delete cascade,
    at   timestamptz not null default clock_timestamp(),
    kind text not null,
    data jsonb not null default '{}'
);
create index job_events_job on roller.job_events (job, id);

create table roller.resource_locks (
    resource   text primary key,
    job        uuid not null references roller.jobs on delete cascade,
    runner     text not null,
    fence      bigint not null,
    expires_at timestamptz not null
);
create index resource_locks_job on roller.resource_locks (job);

create table roller.intents (
    machine       uuid primary key references roller.machines on delete cascade,
    desired_power text not null default 'on',
    control       jsonb not null default '{}',
    set_by        uuid not null,
    runner        text not null,
    since         timestamptz not null default now()
);
comment on table roller.intents is
    'Machines that somebody is about to turn off and on again. The row is written before the power goes and deleted '
    'when it is back, so that whoever finds it later knows what is missing.';

create table roller.runners (
    name      text primary key,
    pid       int not null,
    host      text not null,
    version   text not null,
    pool      text not null default 'default',
    started   timestamptz not null default now(),
    heartbeat timestamptz not null default now(),
    capacity  int not null default 1
);

create table roller.rate_windows (
    key     text primary key,
    started timestamptz not null,
    count   int not null
);

-- What people are told ----------------------------------------------------------------------------------------------

create table roller.notifications (
    id        bigint generated always as identity primary key,
    dedup_key text not null unique,
    job       uuid,
    machine   uuid,
    channel   text not null,
    target    text not null,
    subject   text not null,
    body      text not null,
    link      text,
    link_text text,
    state     text not null default 'pending' check (state in ('pending', 'sent', 'abandoned')),
    attempts  int not null default 0,
    next_try  timestamptz not null default now(),
    created   timestamptz not null default now(),
    sent      timestamptz,
    error     text
);
create index notifications_due on roller.notifications (next_try) where state = 'pending';
create index notifications_machine on roller.notifications (machine, target, created);

create table roller.audit_log (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default clock_timestamp(),
    client_id  text not null,
    source_ip  text,
    verb       text not null,
    object     text not null,
    before     jsonb,
    after      jsonb,
    request_id text
);
create index audit_log_object on roller.audit_log (object, id desc);

create function roller.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
end
$$;
create trigger audit_log_is_append_only before update or delete or truncate on roller.audit_log
    for each statement execute function roller.refuse_change();
