-- What a step's service has said of its end, and whether the audit says that it took that back.
alter table shipit_pipeline.pipeline_steps
    add column remote_ended boolean not null default false,
    add column remote_updated timestamptz,
    add column regress_told boolean not null default false;
create index pipeline_steps_ended on shipit_pipeline.pipeline_steps (remote_uid)
    where remote_ended and not regress_told;
