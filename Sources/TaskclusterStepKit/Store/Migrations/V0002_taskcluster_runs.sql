create table shipit_taskcluster.runs (
    step_id bigint primary key references shipit_taskcluster.steps (id),
    mode text not null,
    task_group_id text,
    task_id text,
    nonce text not null,
    intent json,
    intent_at timestamptz,
    is_begun boolean not null default false,
    was_seen boolean not null default false,
    heard bigint not null default 0,
    listed_at timestamptz,
    cancel_all_at timestamptz
);
create index runs_group on shipit_taskcluster.runs (task_group_id) where task_group_id is not null;
create index runs_task on shipit_taskcluster.runs (task_id) where task_id is not null;
comment on column shipit_taskcluster.runs.intent is 'what is sent to begin the work, stored before it is sent';
comment on column shipit_taskcluster.runs.heard is 'counts messages of the queue, so that one that comes during a look is not lost';
