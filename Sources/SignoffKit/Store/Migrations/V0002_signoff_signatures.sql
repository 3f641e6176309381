create table shipit_signoff.signatures (
    id bigint generated always as identity primary key,
    step_id bigint not null references shipit_signoff.steps (id),
    sub text not null,
    email text check (octet_length(email) <= 320),
    group_name text not null,
    is_member boolean not null,
    definition_sha256 bytea not null,
    fields json not null default '{}',
    amr text[] not null default '{}',
    auth_time timestamptz,
    iss text not null,
    jti text,
    token_sha256 bytea not null,
    client_ip text,
    user_agent text,
    created timestamptz not null,
    revoked_at timestamptz,
    revoked_by text,
    revoke_reason text
);
create unique index signatures_person on shipit_signoff.signatures (step_id, sub) where revoked_at is null;
create unique index signatures_email on shipit_signoff.signatures (step_id, email)
    where revoked_at is null and email is not null;
create index signatures_sub on shipit_signoff.signatures (sub) where revoked_at is null;
create index signatures_by_email on shipit_signoff.signatures (email) where revoked_at is null;
