-- How often a step's service was said to have news of it: what it answered before the last time may be old.
alter table shipit_pipeline.pipeline_steps add column hints integer not null default 0;

-- Counts the changes of what belongs to a pipeline beyond its row, so that a rendered status is known to be current.
alter table shipit_pipeline.runs add column revision bigint not null default 0;

-- Counts the changes of what concerns all pipelines.
create table shipit_pipeline.revisions (name text primary key, number bigint not null default 0);
insert into shipit_pipeline.revisions (name) values ('freezes');
