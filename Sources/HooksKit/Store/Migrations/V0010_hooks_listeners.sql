-- SPDX-License-Identifier: MPL-2.0

-- What is wanted of the broker, what was made there, and who is at it.
--
-- A hook is out of step while wanted <> made. Whoever sets a hook right takes it for some seconds, writes into
-- bindings everything the broker may have from now on, works at the broker, and then notes what is really there. So
-- bindings never lacks one that the broker has, whoever dies when.
alter table hooks.queues
    alter column queue_name set default '',
    alter column bindings set default '[]',
    add column wanted bigint not null default 1,
    add column made bigint not null default 0,
    add column problems json not null default '[]',
    add column attempts int not null default 0,
    add column retry_at timestamptz,
    add column taken_by text,
    add column taken_until timestamptz not null default '-infinity';
comment on table hooks.queues is
    'One row per hook that has or had bindings. bindings: what the broker may have. made: the value of wanted that was '
    'carried out; lower than wanted while there is something to do. problems: bindings the broker refuses, with the '
    'reason; retry_at: when they are tried again.';

-- Taking work: the hooks that changed, and those whose refused bindings are due again.
create index queues_out_of_step on hooks.queues (taken_until) where wanted <> made;
create index queues_retry on hooks.queues (retry_at) where retry_at is not null;

insert into hooks.queues (hook_group_id, hook_id)
select hook_group_id, hook_id from hooks.hooks where json_array_length(bindings) > 0
on conflict (hook_group_id, hook_id) do nothing;

-- A change of bindings commits together with the wish to carry it out, whoever makes it.
create function hooks.want_bindings() returns trigger language plpgsql as $$
declare
    subject record;
    touched int;
begin
    if tg_op = 'DELETE' then subject := old; else subject := new; end if;
    if tg_op <> 'DELETE' and json_array_length(subject.bindings) > 0 then
        insert into hooks.queues (hook_group_id, hook_id, wanted)
        values (subject.hook_group_id, subject.hook_id, nextval('hooks.definition_version'))
        on conflict (hook_group_id, hook_id) do update set wanted = excluded.wanted, retry_at = null;
        touched := 1;
    else
        update hooks.queues set wanted = nextval('hooks.definition_version'), retry_at = null
        where hook_group_id = subject.hook_group_id and hook_id = subject.hook_id;
        get diagnostics touched = row_count;
    end if;
    if touched > 0 then perform pg_notify('hooks_bindings', ''); end if;
    return null;
end
$$;
create trigger want_bindings_of_new after insert on hooks.hooks
    for each row when (json_array_length(new.bindings) > 0) execute function hooks.want_bindings();
create trigger want_bindings_of_changed after update of bindings on hooks.hooks
    for each row when (old.bindings::text is distinct from new.bindings::text) execute function hooks.want_bindings();
create trigger want_bindings_of_gone after delete on hooks.hooks
    for each row execute function hooks.want_bindings();

create table hooks.listeners (
    listener_id text primary key,
    seen        timestamptz not null default now()
);
comment on table hooks.listeners is 'The running listeners, which share the hooks among them.';

create table hooks.unfired_counts (
    hook_group_id text not null,
    hook_id       text not null,
    kind          text not null check (kind in ('declined', 'rejected', 'dead')),
    count         bigint not null,
    primary key (hook_group_id, hook_id, kind)
);
comment on table hooks.unfired_counts is 'How many messages reached a hook and fired nothing, by the reason.';

create table hooks.unfired_messages (
    hook_group_id text not null,
    hook_id       text not null,
    kind          text not null check (kind in ('declined', 'rejected')),
    slot          int not null,
    received      timestamptz not null,
    reason        text not null,
    exchange      text not null,
    routing_key   text not null,
    cc            text[] not null,
    message_id    text,
    body          bytea not null,
    is_cut        boolean not null,
    primary key (hook_group_id, hook_id, kind, slot)
);
comment on table hooks.unfired_messages is
    'The last messages of each hook that a filter declined or the trigger schema rejected, in a ring of slots that are '
    'written over: however many there are, the table does not grow.';

create table hooks.dead_letters (
    letter_id     bigint generated always as identity primary key,
    hook_group_id text not null,
    hook_id       text not null,
    received      timestamptz not null,
    reason        text not null check (reason in ('poison', 'overflow', 'redelivered', 'rejected', 'expired')),
    error         text not null,
    exchange      text not null,
    routing_key   text not null,
    cc            text[] not null,
    message_id    text,
    body          bytea not null,
    identity      text unique,
    replayed      timestamptz,
    task_id       text
);
comment on table hooks.dead_letters is
    'Messages that could not be turned into a fire: unusable ones (poison), those a full queue pushed out (overflow), '
    'those that broke their consumer again and again (redelivered). identity: copies of one message are one letter. '
    'replayed and task_id: what a person made of it.';
-- The letters of a hook, newest first, page by page.
create index dead_letters_of_hook on hooks.dead_letters (hook_group_id, hook_id, letter_id desc);
-- Forgetting.
create index dead_letters_age on hooks.dead_letters (received);
