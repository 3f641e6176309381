create table shipit_pipeline.runs (
    id bigint primary key references shipit_pipeline.steps (id),
    paused boolean not null default false,
    cancel_requested boolean not null default false,
    concurrency_key text
);
create index runs_key on shipit_pipeline.runs (concurrency_key, id) where concurrency_key is not null;

create table shipit_pipeline.pipeline_steps (
    pipeline_id bigint not null references shipit_pipeline.runs (id),
    uid text not null,
    position integer not null,
    state text not null default 'pending',
    attempt integer not null default 1,
    api_url text not null,
    remote_uid text,
    request json,
    parameters json,
    message text not null default '',
    output json not null default '{}',
    remote_info json not null default '{}',
    ready_since timestamptz,
    intended timestamptz,
    started timestamptz,
    finished timestamptz,
    next_call timestamptz,
    poll_interval_ms integer not null default 1000,
    failures integer not null default 0,
    unreachable_since timestamptz,
    unreachable_told boolean not null default false,
    vanished integer not null default 0,
    vanished_since timestamptz,
    ending text,
    stop_since timestamptz,
    stop_told boolean not null default false,
    retry_at timestamptz,
    freeze_overridden boolean not null default false,
    skipped_by_hand boolean not null default false,
    primary key (pipeline_id, uid)
);
create index pipeline_steps_remote on shipit_pipeline.pipeline_steps (remote_uid)
    where state in ('starting', 'running', 'stopping');

create table shipit_pipeline.locks (
    name text primary key,
    pipeline_id bigint not null references shipit_pipeline.runs (id),
    step_uid text not null,
    since timestamptz not null
);
create index locks_holder on shipit_pipeline.locks (pipeline_id);

create table shipit_pipeline.lock_waiters (
    name text not null,
    pipeline_id bigint not null references shipit_pipeline.runs (id),
    step_uid text not null,
    since timestamptz not null,
    primary key (name, pipeline_id, step_uid)
);
create index lock_waiters_order on shipit_pipeline.lock_waiters (name, since, pipeline_id, step_uid);
create index lock_waiters_pipeline on shipit_pipeline.lock_waiters (pipeline_id);

create table shipit_pipeline.freezes (
    uid text primary key,
    name text not null,
    reason text not null,
    starts timestamptz not null,
    ends timestamptz not null,
    labels json not null default '{}',
    api_url_prefix text,
    step_uid_glob text,
    created_by text not null,
    created timestamptz not null
);
create index freezes_ends on shipit_pipeline.freezes (ends);
