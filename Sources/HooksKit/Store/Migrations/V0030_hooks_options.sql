-- SPDX-License-Identifier: MPL-2.0

-- Members of a definition that the original service does not have, under their names in the API, and only those that
-- the author gave: a hook without them reads exactly like one of the original.
alter table hooks.hooks add column options json not null default '{}';
