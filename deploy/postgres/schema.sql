-- Keys for scopegate: teams, digests of keys, and news of every change. For PostgreSQL 11 and later; tried with 15.
--
--   psql -v ON_ERROR_STOP=1 -1 -d keys -f schema.sql
--
-- scopegate's own role may look up one digest at a time, and nothing else: it reads no table, and so cannot list them.
--
--   CREATE ROLE scopegate LOGIN PASSWORD '…';
--   GRANT USAGE ON SCHEMA scopegate TO scopegate;
--   GRANT EXECUTE ON FUNCTION scopegate.find(bytea) TO scopegate;
--
-- Who makes and revokes keys with `scopegate keys --user keymaster` reads both tables, and writes one:
--
--   CREATE ROLE keymaster LOGIN PASSWORD '…';
--   GRANT USAGE ON SCHEMA scopegate TO keymaster;
--   GRANT SELECT ON scopegate.teams, scopegate.keys TO keymaster;
--   GRANT INSERT, UPDATE ON scopegate.keys TO keymaster;
--
-- Who administers teams needs INSERT, UPDATE and DELETE on both:
--
--   INSERT INTO scopegate.teams (name, scopes) VALUES ('acme', '{CREATE_CALL_TOKEN,READ_TEAM_APPS}');
--   INSERT INTO scopegate.keys (id, team, digest, scopes)
--       VALUES ('acme-web', 'acme', decode('…64 digits…', 'hex'), '{READ_TEAM_APPS}');
--
-- The digest is made where the key is, so that the key itself is in no statement, log or backup:
--
--   printf %s "$KEY" | sha256sum

CREATE SCHEMA scopegate;
REVOKE ALL ON SCHEMA scopegate FROM PUBLIC;

CREATE TABLE scopegate.teams (
    -- One word: it stands in logs, and in the news.
    name text PRIMARY KEY CHECK (name ~ '^[^[:space:][:cntrl:]]{1,200}$'),
    -- What its keys may have at most.
    scopes text[] NOT NULL DEFAULT '{}' CHECK (array_position(scopes, NULL) IS NULL),
    enabled boolean NOT NULL DEFAULT true,
    -- The same as not enabled, for good.
    deleted boolean NOT NULL DEFAULT false,
    -- More keys are not made by the commands. NULL: 2.
    max_keys integer CHECK (max_keys >= 0),
    created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scopegate.keys (
    -- What logs name it by.
    id text PRIMARY KEY CHECK (id ~ '^[^[:cntrl:]]{1,200}$'),
    team text NOT NULL REFERENCES scopegate.teams (name) ON UPDATE CASCADE,
    -- For people.
    name text,
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    -- After a rotation: the digest before, since when it is that, and until when it still opens something.
    previous_digest bytea UNIQUE CHECK (octet_length(previous_digest) = 32),
    previous_since timestamptz,
    previous_until timestamptz,
    scopes text[] NOT NULL DEFAULT '{}' CHECK (array_position(scopes, NULL) IS NULL),
    disabled boolean NOT NULL DEFAULT false,
    -- Why, for people.
    disabled_reason text,
    -- NULL: without end.
    expires timestamptz,
    created timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT current_user,
    CHECK (previous_digest <> digest),
    CHECK ((previous_digest IS NULL) = (previous_until IS NULL))
);

CREATE INDEX keys_team ON scopegate.keys (team);

-- What scopegate asks. Its columns are the ones that it knows.
CREATE FUNCTION scopegate.find(
    wanted bytea,
    OUT id text, OUT team text, OUT scopes text[], OUT team_scopes text[],
    OUT disabled boolean, OUT team_disabled boolean, OUT expires timestamptz,
    OUT sunset timestamptz, OUT since timestamptz
)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.id, k.team, k.scopes, t.scopes, k.disabled, t.deleted OR NOT t.enabled, k.expires, NULL, NULL
    FROM scopegate.keys k JOIN scopegate.teams t ON t.name = k.team
    WHERE k.digest = wanted
    UNION ALL
    -- It ends with the earlier of `expires` and `sunset`.
    SELECT k.id, k.team, k.scopes, t.scopes, k.disabled, t.deleted OR NOT t.enabled, k.expires,
        k.previous_until, k.previous_since
    FROM scopegate.keys k JOIN scopegate.teams t ON t.name = k.team
    WHERE k.previous_digest = wanted
$$;
REVOKE ALL ON FUNCTION scopegate.find(bytea) FROM PUBLIC;

-- News: every digest of the row, as it was and as it is. They are told when the transaction commits.
CREATE FUNCTION scopegate.tell_of_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('scopegate_changes', 'key ' || encode(digest, 'hex'))
        FROM unnest(ARRAY[OLD.digest, OLD.previous_digest]) AS digest WHERE digest IS NOT NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('scopegate_changes', 'key ' || encode(digest, 'hex'))
        FROM unnest(ARRAY[NEW.digest, NEW.previous_digest]) AS digest WHERE digest IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION scopegate.tell_of_team() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('scopegate_changes', 'team ' || OLD.name);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('scopegate_changes', 'team ' || NEW.name);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION scopegate.tell_of_all() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('scopegate_changes', 'all');
    RETURN NULL;
END $$;

CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON scopegate.keys
    FOR EACH ROW EXECUTE FUNCTION scopegate.tell_of_key();
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON scopegate.teams
    FOR EACH ROW EXECUTE FUNCTION scopegate.tell_of_team();
CREATE TRIGGER tell_of_all AFTER TRUNCATE ON scopegate.keys
    FOR EACH STATEMENT EXECUTE FUNCTION scopegate.tell_of_all();
CREATE TRIGGER tell_of_all AFTER TRUNCATE ON scopegate.teams
    FOR EACH STATEMENT EXECUTE FUNCTION scopegate.tell_of_all();
