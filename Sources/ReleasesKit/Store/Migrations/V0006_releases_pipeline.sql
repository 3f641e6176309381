-- The pipeline a release was made with: one that took its name later is none of its.
alter table shipit_releases.releases add column pipeline_id bigint;
