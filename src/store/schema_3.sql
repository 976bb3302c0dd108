-- From version 2 to version 3.

-- Whom the commit names as its author.
ALTER TABLE deploys ADD COLUMN commit_author TEXT;
-- When each step began; it ended when the next one began, or with the deploy.
ALTER TABLE deploys ADD COLUMN fetching_at INTEGER;
ALTER TABLE deploys ADD COLUMN building_at INTEGER;
ALTER TABLE deploys ADD COLUMN starting_at INTEGER;
ALTER TABLE deploys ADD COLUMN checking_at INTEGER;
