-- The number of the last revocation of anybody when a signature was made; the revocations are in shipit_people now.
alter table shipit_signoff.signatures add column revocations_seen integer not null default 0;
comment on table shipit_signoff.revocations is 'from before shipit_people.revocations, to which they are carried over';
