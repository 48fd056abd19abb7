INSERT INTO runs (run_id, project, pipeline, version, state, created_at, started_at, finished_at, duration, deployment,
    trigger_type, trigger, labels, priority, error, inputs, outputs, seq, last_seq)
WITH $numbers
SELECT $id, 'default', 'pipeline-' || (n % 40), 1 + n % 9,
    CASE WHEN n > $runs - 20 THEN 'running' WHEN n % 17 = 3 THEN 'failed' WHEN n % 211 = 5 THEN 'cancelled'
        ELSE 'succeeded' END,
    $start + n * $gap, $start + n * $gap + 1, $start + n * $gap + 60 + n % 600, 60 + n % 600,
    CASE WHEN n % 3 = 0 THEN 'nightly' END, CASE WHEN n % 5 = 0 THEN 'cron' ELSE 'manual' END,
    '{"type":"manual"}', '{"team":"a","number":"1"}', 0, NULL, '{"depth":{"value":3}}', NULL, n * 25, n * 25 + 24
FROM numbers

INSERT INTO attempts (run_id, key, attempt, state, seq, pool, requested_at, started_at, finished_at, executor, host, inputs,
    outputs)
WITH $numbers
SELECT $id, 'step-' || i, 1, 'succeeded', n * 25 + i, 'default', $start + n * $gap + i, $start + n * $gap + i + 1,
    $start + n * $gap + i + 3, 'executor-1', 'host-1', '{"x":{"value":1}}', '{"result":{"value":1}}'
FROM numbers CROSS JOIN steps

INSERT INTO labels (run_id, name, key, value)
WITH $numbers
SELECT $id, 'number', '', '' || (n % 50000) FROM numbers
UNION ALL SELECT $id, 'team', '', 'team-' || (n % 7) FROM numbers

INSERT INTO params (run_id, name, key, number, value)
WITH $numbers
SELECT $id, 'depth', '', n % 12, '' || (n % 12) FROM numbers

INSERT INTO metrics (run_id, name, key, attempt, value)
WITH $numbers
SELECT $id, 'loss', 'step-9', 1, ((n * 1709) % 1000003) / 1000003.0 FROM numbers
UNION ALL SELECT $id, 'accuracy', 'step-9', 1, ((n * 2047) % 999983) / 999983.0 FROM numbers
