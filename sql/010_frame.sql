-- sql/010_frame.sql: the frame lane: rows of numbers packed into bytes, and bytes taken for arrays.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Runs as   a superuser, since it gives PostgreSQL's own C functions other argument types
-- Needs     search_path = pg_catalog, pg_temp; the schema dbscore_engine
--
-- A frame is the bodies of arrays, one behind the other: per row five int4 (dimensions, offset of the NULL bitmap, element
-- type, length, lower bound; in the server's byte order), then the values. All rows have the same length and no NULL,
-- so a frame has a fixed stride, and is read without a Python object per value.
--
-- dbscore_engine.frame(real[] | double precision[] | bigint[], '')  aggregate: the rows' arrays as one bytea; no row is NULL
-- dbscore_engine.null_real(), null_double()                         what stands for NULL in a frame: a NaN no computation makes
-- dbscore_engine.reals(bytea), doubles, bigints, integers, smallints, booleans
--                                                                   raw numbers, in the server's byte order, as an array
--
-- The functions `adopt_*` take any bytes for an array and would crash the server on garbage: only a superuser may
-- execute them. Whoever may execute `doubles` cannot: it puts the header of the array there itself.

do $do$
declare
    kind record;
begin
    for kind in
        select * from (values
            ('real[]', 'reals', 'bc020000', 4), ('double precision[]', 'doubles', 'bd020000', 8), ('bigint[]', 'bigints', '14000000', 8),
            ('integer[]', 'integers', '17000000', 4), ('smallint[]', 'smallints', '15000000', 2), ('boolean[]', 'booleans', '10000000', 1)
        ) as kinds (type, name, element, size)
    loop
        -- bytea || bytea, its result taken for an array
        execute pg_catalog.format('create or replace function dbscore_engine.%I(bytea, bytea) returns %s language internal immutable strict parallel safe as ''byteacat''',
                                  'adopt_' || kind.name, kind.type);
        execute pg_catalog.format('revoke all on function dbscore_engine.%I(bytea, bytea) from public', 'adopt_' || kind.name);
        execute pg_catalog.format($sql$
create or replace function dbscore_engine.%1$I(numbers bytea) returns %2$s
language plpgsql immutable strict parallel safe security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    length constant integer := octet_length(numbers) / %4$s;
    counted constant bytea := int4send(length);
begin
    if octet_length(numbers) %% %4$s <> 0 then
        raise exception '%% bytes are no whole number of %2$s elements of %4$s bytes', octet_length(numbers) using errcode = 'ML002';
    end if;
    if length = 0 then
        return '{}';
    end if;
    -- one dimension, no bitmap, the element type, how many, counted from 1
    return dbscore_engine.%5$I(
        '\x0100000000000000%3$s'::bytea
        || substr(counted, 4, 1) || substr(counted, 3, 1) || substr(counted, 2, 1) || substr(counted, 1, 1) || '\x01000000'::bytea,
        numbers);
end
$function$ $sql$, kind.name, kind.type, kind.element, kind.size, 'adopt_' || kind.name);
        execute pg_catalog.format('revoke all on function dbscore_engine.%I(bytea) from public', kind.name);
        execute pg_catalog.format('comment on function dbscore_engine.%I(bytea) is ''Raw numbers, in the server''''s byte order, as %s.''', kind.name, kind.type);
    end loop;

    for kind in select * from (values ('real[]'), ('double precision[]'), ('bigint[]')) as kinds (type)
    loop
        -- string_agg(bytea, bytea), which appends the body of whatever it is given
        execute pg_catalog.format('create or replace function dbscore_engine.pack(internal, %s, bytea) returns internal language internal parallel safe as ''bytea_string_agg_transfn''', kind.type);
        execute pg_catalog.format('revoke all on function dbscore_engine.pack(internal, %s, bytea) from public', kind.type);
    end loop;
    create or replace function dbscore_engine.packed(internal) returns bytea language internal parallel safe as 'bytea_string_agg_finalfn';
    revoke all on function dbscore_engine.packed(internal) from public;
    for kind in select * from (values ('real[]'), ('double precision[]'), ('bigint[]')) as kinds (type)
    loop
        execute pg_catalog.format('create or replace aggregate dbscore_engine.frame(%s, bytea) (sfunc = dbscore_engine.pack, stype = internal, finalfunc = dbscore_engine.packed, parallel = safe)', kind.type);
        execute pg_catalog.format('revoke all on function dbscore_engine.frame(%s, bytea) from public', kind.type);
        execute pg_catalog.format('comment on aggregate dbscore_engine.frame(%s, bytea) is ''The rows'''' arrays as one frame; the second argument is the empty bytea.''', kind.type);
    end loop;
end
$do$;

create or replace function dbscore_engine.null_double() returns double precision
language sql immutable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $function$ select (dbscore_engine.doubles('\xb50d00000000f87f'))[1] $function$;

create or replace function dbscore_engine.null_real() returns real
language sql immutable parallel safe security definer
set search_path = pg_catalog, pg_temp
as $function$ select (dbscore_engine.reals('\xb50dc07f'))[1] $function$;

revoke all on function dbscore_engine.null_double(), dbscore_engine.null_real() from public;

comment on function dbscore_engine.null_double() is 'What stands for NULL in a frame of double precision: a NaN that no computation makes.';
comment on function dbscore_engine.null_real() is 'What stands for NULL in a frame of real: a NaN that no computation makes.';

do $do$
begin
    if (select dbscore_engine.frame(array[1, -2]::double precision[], ''::bytea) from generate_series(1, 2))
       <> '\x0100000000000000bd0200000200000001000000000000000000f03f00000000000000c00100000000000000bd0200000200000001000000000000000000f03f00000000000000c0'
       or dbscore_engine.doubles('\x000000000000f03f00000000000000c0') <> array[1, -2]::double precision[]
       or dbscore_engine.null_double() <> 'NaN' or dbscore_engine.null_real() <> 'NaN'
    then
        raise exception 'this server lays its arrays out in another way than dbscore packs them' using errcode = 'ML009',
            hint = 'dbscore needs a little-endian processor, as x86 and ARM are.';
    end if;
end
$do$;

grant execute on function
    dbscore_engine.frame(real[], bytea), dbscore_engine.frame(double precision[], bytea), dbscore_engine.frame(bigint[], bytea),
    dbscore_engine.reals(bytea), dbscore_engine.doubles(bytea), dbscore_engine.bigints(bytea), dbscore_engine.integers(bytea), dbscore_engine.smallints(bytea),
    dbscore_engine.booleans(bytea), dbscore_engine.null_double(), dbscore_engine.null_real()
to {{owner}} with grant option;
