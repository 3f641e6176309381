alter table shipit_pipeline.pipeline_steps add column called_for boolean not null default false;

alter table shipit_pipeline.freezes
    add column cron_start text,
    add column cron_end text,
    add column tz text not null default 'UTC',
    add column override_scopes text[] not null default '{}';

create table shipit_pipeline.templates (
    name text primary key,
    version text not null,
    schema json not null default '{}',
    definition json not null,
    created_by text not null,
    updated timestamptz not null
);

create table shipit_pipeline.notices (
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
    error text
);
create index notices_due on shipit_pipeline.notices (next_try) where state = 'pending';
create index notices_created on shipit_pipeline.notices (created) where state <> 'pending';
