create table shipit_signoff.revocations (
    id bigint generated always as identity primary key,
    sub text,
    email text,
    at timestamptz not null,
    actor text not null,
    reason text not null,
    check ((sub is null) <> (email is null))
);
create index revocations_sub on shipit_signoff.revocations (sub, at) where sub is not null;
create index revocations_email on shipit_signoff.revocations (email, at) where email is not null;
comment on table shipit_signoff.revocations is 'tokens of these people that are older sign nothing any more';
