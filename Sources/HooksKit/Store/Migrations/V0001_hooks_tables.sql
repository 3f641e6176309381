-- SPDX-License-Identifier: MPL-2.0

-- A new number for every change of a definition, also across removal and re-creation, so that compiled templates
-- can be cached by it.
create sequence hooks.definition_version;

create table hooks.hooks (
    hook_group_id           text not null,
    hook_id                 text not null,
    metadata                json not null,
    task                    json not null,
    bindings                json not null,
    schedule                json not null,
    trigger_schema          json not null,
    encrypted_trigger_token text not null,
    encrypted_next_task_id  text not null,
    next_scheduled_date     timestamptz not null,
    definition_version      bigint not null default nextval('hooks.definition_version'),
    primary key (hook_group_id, hook_id)
);
comment on table hooks.hooks is 'Hook definitions. A group exists while it has a hook. json keeps the sender''s spelling.';
-- The scheduler asks "what is due" and "when is the next one"; hooks without a schedule stand at the far future.
create index hooks_due on hooks.hooks (next_scheduled_date) where next_scheduled_date < '3999-01-01Z';
-- Reconciling the listeners reads only the hooks that have bindings.
create index hooks_bound on hooks.hooks (hook_group_id, hook_id) where json_array_length(bindings) > 0;

create table hooks.fires (
    fire_id       bigint generated always as identity primary key,
    hook_group_id text not null,
    hook_id       text not null,
    task_id       text not null,
    fired_by      text not null check (fired_by in ('schedule', 'triggerHook', 'triggerHookWithToken', 'pulseMessage')),
    context       text,
    request_hash  text,
    created       timestamptz not null,
    started       timestamptz not null,
    definition    text,
    state         text not null check (state in ('pending', 'mailing', 'done')),
    outcome       text check (outcome in ('created', 'declined', 'failed', 'dropped')),
    error         text,
    attempts      int not null default 0,
    failures      int not null default 0,
    lease         bigint not null default 0,
    run_at        timestamptz not null,
    finished      timestamptz,
    dedup_key     text unique,
    queue         text,
    consumer      text,
    content_hash  text,
    settled       boolean not null default true
);
comment on table hooks.fires is
    'Every fire, written before it is performed. run_at is when somebody may take it: at once, after a pause, or when '
    'the lease of its present performer ends. lease is the fencing number. Finished rows are swept after a day.';
-- Taking work.
create index fires_open on hooks.fires (run_at) where state <> 'done';
-- A schedule waits while an earlier fire of its hook is being retried.
create index fires_retrying on hooks.fires (hook_group_id, hook_id)
    where state = 'pending' and fired_by = 'schedule' and failures > 0;
-- A redelivered message without an identity looks for its earlier acceptance.
create index fires_unsettled on hooks.fires (queue, content_hash) where not settled;
-- Sweeping.
create index fires_finished on hooks.fires (finished) where state = 'done';

create table hooks.last_fires (
    hook_group_id    text not null,
    hook_id          text not null,
    task_id          text not null,
    fired_by         text not null,
    task_create_time timestamptz not null,
    result           text not null check (result in ('success', 'error')),
    error            text not null default '',
    primary key (hook_group_id, hook_id, task_id)
);
comment on table hooks.last_fires is 'The history shown to people: one row per task a hook made or failed to make.';
-- Newest first, page by page.
create index last_fires_newest on hooks.last_fires (hook_group_id, hook_id, task_create_time desc, task_id desc);
-- Expiry after a year.
create index last_fires_age on hooks.last_fires (task_create_time);

create table hooks.queues (
    hook_group_id text not null,
    hook_id       text not null,
    queue_name    text not null,
    bindings      json not null,
    primary key (hook_group_id, hook_id)
);
comment on table hooks.queues is 'Queues that exist in the broker, with the bindings that were really made.';

create table hooks.failure_mails (
    hook_group_id text not null,
    hook_id       text not null,
    owner         text not null,
    sent_at       timestamptz not null,
    primary key (hook_group_id, hook_id)
);
comment on table hooks.failure_mails is 'When the owner was last told that the schedule fails; cleared by a success.';

create table hooks.audit_history (
    entity_id   text not null,
    entity_type text not null default 'hook',
    client_id   text not null,
    action      text not null check (action in ('created', 'updated', 'deleted')),
    created     timestamptz not null default now()
);
comment on table hooks.audit_history is 'Who changed which hook, and when.';
-- The history of one hook.
create index audit_history_entity on hooks.audit_history (entity_id, created);

-- Messages to the bus, committed with the change they announce.
create table hooks.outbox (
    id          bigint generated always as identity primary key,
    exchange    text not null,
    routing_key text not null,
    cc          text[] not null default '{}',
    body        text not null,
    created     timestamptz not null default now()
);
