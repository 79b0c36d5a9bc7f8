-- sql/050_assignment.sql: which variant a unit gets: a hash, deterministic, without a look at any table.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     nothing
--
-- dbscore.bucket(scheme, salt, unit) -> 0 to 9999
--   sha256       the first 8 bytes, big-endian, of SHA-256 of salt || '.' || unit in UTF-8, modulo 10000
--   growthbook2  GrowthBook's hash version 2: FNV-1a of salt || unit, and FNV-1a of that number's digits, modulo 10000
-- dbscore.layer_bucket(scheme, layer, unit) -> 0 to 9999   which part of a layer a unit is in
--   growthbook2  GrowthBook's namespaces: FNV-1a of unit || '__' || layer, modulo 1000, times ten
-- dbscore.fnv1a(text) -> bigint                  32-bit FNV-1a over UTF-16 code units, from 0 to 2^32 - 1
-- dbscore.boundaries(scheme, weights) -> integer[]   the first bucket beyond each variant; weights in ten thousandths
-- dbscore.variant_at(boundaries, bucket) -> integer  the number of the variant, from 1
--
-- Source: SHA-256 is FIPS 180-4; FNV-1a is http://www.isthe.com/chongo/tech/comp/fnv/; GrowthBook's hash is in
-- https://docs.growthbook.io/lib/build-your-own

-- it becomes part of the query: each argument is used once, and everything is immutable, as convert_to() is not; a
-- backslash is doubled for decode(). 2^63 modulo 10000 is 5808: the highest bit is turned over, which takes 2^63 away,
-- so that the number fits a bigint
create or replace function dbscore.sha256_bucket(salt text, unit text) returns integer
language sql immutable parallel safe
return ((
    (('x' || encode(substr(sha256(decode(replace(salt || '.' || unit, E'\\', E'\\\\'), 'escape')), 1, 8), 'hex'))::bit(64)
        # b'1000000000000000000000000000000000000000000000000000000000000000')::bigint
    % 10000 + 15808) % 10000)::integer;

create or replace function dbscore.fnv1a(text) returns bigint
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    hash bigint := 2166136261;
    code integer;
    i integer;
begin
    for i in 1 .. length($1)
    loop
        code := ascii(substr($1, i, 1));
        if code > 65535 then
            -- two code units: the upper ten bits, and the lower ten
            hash := ((hash # (55296 + ((code - 65536) >> 10))) * 16777619) & 4294967295;
            code := 56320 + ((code - 65536) & 1023);
        end if;
        hash := ((hash # code) * 16777619) & 4294967295;
    end loop;
    return hash;
end
$function$;

create or replace function dbscore.bucket(scheme text, salt text, unit text) returns integer
language sql immutable parallel safe
return case scheme
    when 'sha256' then dbscore.sha256_bucket(salt, unit)
    when 'growthbook2' then (dbscore.fnv1a(dbscore.fnv1a(salt || unit)::text) % 10000)::integer
end;

create or replace function dbscore.layer_bucket(scheme text, layer text, unit text) returns integer
language sql immutable parallel safe
return case scheme
    when 'sha256' then dbscore.sha256_bucket('layer.' || layer, unit)
    when 'growthbook2' then (dbscore.fnv1a(unit || '__' || layer) % 1000 * 10)::integer
end;

-- independent of the variant, and of weights
create or replace function dbscore.is_held_out(scheme text, salt text, unit text, holdout integer) returns boolean
language sql immutable parallel safe
return holdout > 0 and dbscore.bucket(scheme, salt || '.holdout', unit) < holdout;

-- GrowthBook adds weights up in double precision, and compares the bucket as a share: so its sums, 0.1 + 0.2 among them,
-- are made here as it makes them
create or replace function dbscore.boundaries(scheme text, weights integer[]) returns integer[]
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    whole integer := 0;
    share double precision := 0;
    boundary integer;
    found integer[] := '{}';
    weight integer;
begin
    foreach weight in array weights
    loop
        whole := whole + weight;
        boundary := whole;
        if scheme = 'growthbook2' then
            share := share + weight / 10000.0::double precision;
            while boundary > 0 and (boundary - 1) / 10000.0::double precision >= share
            loop
                boundary := boundary - 1;
            end loop;
            while boundary < 10000 and boundary / 10000.0::double precision < share
            loop
                boundary := boundary + 1;
            end loop;
        end if;
        found := found || boundary;
    end loop;
    return found;
end
$function$;

create or replace function dbscore.variant_at(boundaries integer[], bucket integer) returns integer
language sql immutable parallel safe
return width_bucket(bucket, boundaries) + 1;

comment on function dbscore.sha256_bucket(text, text) is 'The bucket of a unit, from 0 to 9999, by SHA-256 of salt, a point and unit.';
comment on function dbscore.fnv1a(text) is '32-bit FNV-1a over the UTF-16 code units of a text.';
comment on function dbscore.bucket(text, text, text) is 'The bucket of a unit, from 0 to 9999: scheme sha256 or growthbook2.';
comment on function dbscore.layer_bucket(text, text, text) is 'The part of a layer that a unit is in, from 0 to 9999.';
comment on function dbscore.is_held_out(text, text, text, integer) is 'Whether a unit is in the share, of ten thousand, that an experiment holds out.';
comment on function dbscore.boundaries(text, integer[]) is 'The first bucket beyond each variant.';
comment on function dbscore.variant_at(integer[], integer) is 'The number of the variant that a bucket is in, from 1.';
