-- From version 3 to version 4.

-- What an app's owner chose, as one JSON object with the API's names, so that a setting more
-- is no column more. What it does not name is the platform's default.
ALTER TABLE apps ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';
UPDATE apps SET settings = json_object(
    'branch', branch,
    'rootDir', root_dir,
    'buildCommand', build_command,
    'startCommand', start_command,
    'healthPath', health_path,
    'healthTimeoutSeconds', health_timeout_seconds,
    'domains', json((SELECT json_group_array(domain) FROM
        (SELECT domain FROM domains WHERE app_id = apps.id ORDER BY position))),
    'memoryMb', memory_mb,
    'cpuPercent', cpu_percent,
    'maxProcesses', max_processes,
    -- Plain paths, which need no escape.
    'hostSockets', json(iif(host_sockets = '', '[]',
        '["' || replace(host_sockets, char(10), '","') || '"]')),
    'autoDeploy', json(iif(auto_deploy, 'true', 'false'))
);
DROP TABLE domains;
ALTER TABLE apps DROP COLUMN branch;
ALTER TABLE apps DROP COLUMN root_dir;
ALTER TABLE apps DROP COLUMN build_command;
ALTER TABLE apps DROP COLUMN start_command;
ALTER TABLE apps DROP COLUMN health_path;
ALTER TABLE apps DROP COLUMN health_timeout_seconds;
ALTER TABLE apps DROP COLUMN memory_mb;
ALTER TABLE apps DROP COLUMN cpu_percent;
ALTER TABLE apps DROP COLUMN max_processes;
ALTER TABLE apps DROP COLUMN host_sockets;
ALTER TABLE apps DROP COLUMN auto_deploy;
