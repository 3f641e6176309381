-- Signatures of phases, each bound to what was approved; revoked ones stay.
create table shipit_releases.signatures (
    id bigint generated always as identity primary key,
    signoff_uid text not null references shipit_releases.signoffs (uid),
    release_id bigint not null references shipit_releases.releases (id),
    phase text not null,
    sub text not null,
    email text check (octet_length(email) <= 320),
    -- Of what was approved; null for signatures from before there were digests.
    digest bytea,
    revocations_seen integer not null default 0,
    lax boolean not null default false,
    amr text[] not null default '{}',
    auth_time timestamptz,
    iss text,
    jti text,
    token_sha256 bytea,
    client_ip text,
    user_agent text,
    created timestamptz not null,
    revoked_at timestamptz,
    revoked_by text,
    revoke_reason text,
    -- When its person was revoked, if the phase had been called for before that.
    late_at timestamptz
);
create unique index signatures_slot on shipit_releases.signatures (signoff_uid) where revoked_at is null;
create unique index signatures_sub on shipit_releases.signatures (release_id, phase, sub)
    where revoked_at is null and not lax;
create unique index signatures_email on shipit_releases.signatures (release_id, phase, email)
    where revoked_at is null and not lax and email is not null;

insert into shipit_releases.signatures (signoff_uid, release_id, phase, sub, email, created, lax)
select uid, release_id, phase, subject, case when signed_by like '%@%' then lower(signed_by) end, signed, true
from shipit_releases.signoffs where signed is not null and subject is not null;
-- Replicas of the version before still read these; a later version drops them.
comment on column shipit_releases.signoffs.signed is 'not used any more, nor are subject and signed_by';

-- What was called for, and who asked for the release by their subject.
alter table shipit_releases.phases add column digest bytea;
alter table shipit_releases.releases add column created_sub text;
