-- SPDX-License-Identifier: MPL-2.0

-- A dead letter names the queue it was in.
create index queues_by_name on hooks.queues (queue_name);
