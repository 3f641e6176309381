-- SPDX-License-Identifier: MPL-2.0

create table triggers.uses (
    trigger     text not null,
    queue       text not null,
    exchange    text not null,
    routing_key text not null,
    seen        timestamptz not null default now(),
    primary key (trigger, queue, exchange, routing_key)
);
comment on table triggers.uses is
    'Which triggers listeners have in their files, and what each has at the broker; without a queue the other names are '
    'empty. Every listener repeats its own; a row that nobody repeats is left over.';

alter table triggers.tasks add bound boolean not null default false;
comment on column triggers.tasks.bound is 'Whether the queue tells how the task ends, as far as we know.';
create index tasks_unbound on triggers.tasks (made) where ended is null and not bound;
create index tasks_bound on triggers.tasks (task_id) where bound;
create index tasks_bound_ended on triggers.tasks (ended) where bound and ended is not null;
