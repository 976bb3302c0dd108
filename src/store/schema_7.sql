-- From version 6 to version 7.

-- Another one after each change of the value, which is sealed anew by writes that change nothing too.
ALTER TABLE env ADD COLUMN mark TEXT NOT NULL DEFAULT '';

-- The variables that the process was started with, as JSON: their names and marks.
ALTER TABLE processes ADD COLUMN env TEXT;
