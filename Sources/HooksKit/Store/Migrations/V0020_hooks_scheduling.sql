-- SPDX-License-Identifier: MPL-2.0

-- next_scheduled_date is when to wake up; next_due is the instant of the schedule meant by it, which identifies the fire
-- (null: the same). waits_for is a fire that is being repeated because the queue is unwell; the schedule stands still
-- until it ends.
alter table hooks.hooks
    add column next_due     timestamptz,
    add column paused_since timestamptz,
    add column paused_by    text,
    add column waits_for    bigint;

drop index hooks.hooks_due;
-- The scheduler asks "what is due" and "when is the next one".
create index hooks_due on hooks.hooks (next_scheduled_date)
    where next_scheduled_date < '3999-01-01Z' and paused_since is null and waits_for is null;

-- Fires become the ledger: kept for long, and telling what happened when.
alter table hooks.fires
    add column due      timestamptz,
    add column since    timestamptz,
    add column skipped  bigint,
    add column origin   text,
    add column rendered timestamptz,
    add column reason   text,
    add column give_up  timestamptz;
update hooks.fires set due = started, state = case when state = 'mailing' then 'done' else state end;
alter table hooks.fires
    alter column due set default now(),
    alter column due set not null,
    drop constraint fires_outcome_check,
    add constraint fires_outcome_check check (outcome in ('created', 'declined', 'failed', 'dropped', 'skipped'));
comment on column hooks.fires.due is
    'When the event happened: the instant of the schedule, the publication of the message, the arrival of the request.';
comment on column hooks.fires.since is
    'Only for runs of skipped instants: the oldest; due is the newest and skipped their number.';
comment on column hooks.fires.give_up is 'After this, transient errors are final: the deadline of the first definition.';
comment on table hooks.fires is
    'Every fire, written before it is performed, and the ledger afterwards. run_at is when somebody may take it: at once, '
    'after a pause, or when the lease of its present performer ends. lease is the fencing number.';
-- The ledger of one hook, newest first, page by page.
create index fires_ledger on hooks.fires (hook_group_id, hook_id, due desc, fire_id desc);
-- Runs of skipped instants that reach into a range from its later side.
create index fires_skipped on hooks.fires (hook_group_id, hook_id, due) where since is not null;
-- Taking work in the order in which it came due.
drop index hooks.fires_open;
create index fires_open on hooks.fires (run_at, due) where state <> 'done';
drop index hooks.fires_retrying;

update hooks.hooks h set waits_for = (
    select max(fire_id) from hooks.fires f where f.hook_group_id = h.hook_group_id and f.hook_id = h.hook_id
        and f.state = 'pending' and f.fired_by = 'schedule' and f.failures > 0);

drop table hooks.failure_mails;
create table hooks.failure_mails (
    hook_group_id text not null,
    hook_id       text not null,
    reason        text not null,
    failures      bigint not null,
    first_failed  timestamptz not null,
    last_failed   timestamptz not null,
    last_error    text not null,
    last_task_id  text not null,
    sent_at       timestamptz,
    due_at        timestamptz,
    letter        json,
    attempts      int not null default 0,
    primary key (hook_group_id, hook_id, reason)
);
comment on table hooks.failure_mails is
    'Failures the owner is still to be told of, by hook and reason: how many since the last letter went at sent_at, and '
    'when the next one may go. letter is the one being sent, frozen, so that all attempts send the same.';
-- Letters that may go.
create index failure_mails_due on hooks.failure_mails (due_at) where due_at is not null;
