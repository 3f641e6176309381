alter table shipit_pipeline.notices
    add column digest_seconds integer,
    add column held boolean not null default false;
create index notices_sent on shipit_pipeline.notices (channel, target, sent) where state = 'sent';
create index notices_waiting on shipit_pipeline.notices (channel, target, next_try) where state = 'pending';
