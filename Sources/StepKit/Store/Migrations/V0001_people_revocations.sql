-- Whose signatures and tokens from before count no more: one list for all services that share the database.
create table shipit_people.revocations (
    sequence integer primary key,
    sub text,
    email text,
    at timestamptz not null,
    actor text not null,
    reason text not null,
    previous_hash bytea not null,
    hash bytea not null,
    check ((sub is null) <> (email is null))
);
create index revocations_sub on shipit_people.revocations (sub, sequence) where sub is not null;
create index revocations_email on shipit_people.revocations (email, sequence) where email is not null;
create function shipit_people.refuse_change() returns trigger language plpgsql as
    $$ begin raise exception 'revocations are append-only'; end $$;
create trigger revocations_are_append_only before update or delete or truncate on shipit_people.revocations
    for each statement execute function shipit_people.refuse_change();
