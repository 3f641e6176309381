-- The task that plans the tasks of a submitted release, as it is asked for: stored before anybody is told.
alter table shipit_releases.submissions add column graph_task json;
