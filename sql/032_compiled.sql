-- sql/032_compiled.sql: what the functions of compiled versions call: arithmetic without PostgreSQL's errors, and refusals.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     nothing but the schema dbscore; nothing of PL/Python
--
-- ONNX Runtime computes as IEEE 754 says: what is too large is infinite, what is too small is 0, what is not defined is
-- NaN, which is NULL in a compiled expression. PostgreSQL raises an error for each of them.
--
-- dbscore.ieee_exp(x), ieee_ln(x), ieee_sqrt(x), ieee_power(x, y)
-- dbscore.ieee_add(x, y), ieee_multiply(x, y), ieee_divide(x, y), ieee_affine(weights, numbers, constant)
-- dbscore.ieee_real(x), ieee_bigint(x), ieee_integer(x)                                 other types of a number
-- dbscore.check_number(version, feature, value, null_policy, takes_infinity, largest)     ML002 where the model does not take
-- dbscore.check_category(version, feature, value, categories)                             the value; the same words as where
-- dbscore.check_text(version, feature, value, missing, categories)                        ONNX Runtime scores
-- dbscore.check_array(version, feature, numbers, width, null_policy, takes_infinity, largest)
-- dbscore.held_number(version, feature, type, value) -> value                             ML002 where the type does not hold it
-- dbscore.checked_numbers(version, numbers, length) -> numbers                            ML002 where their number is another

-- no exceptions, which a parallel worker may not catch; those that ordinary numbers need have no settings of their own,
-- which would cost more than the arithmetic: so functions, and no operators. What they cost is told low, for a cost
-- on paper makes the planner compile a query with them

create or replace function dbscore.ieee_exp(x double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
as $function$
begin
    return case
        when pg_catalog.float8gt(x, '709.782712893384') then double precision 'Infinity'
        when pg_catalog.float8lt(x, '-745.1332191019411') then double precision '0'
        else pg_catalog.exp(x) end;
end
$function$;

create or replace function dbscore.ieee_ln(x double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
as $function$
begin
    return case when pg_catalog.float8gt(x, '0') then pg_catalog.ln(x) when pg_catalog.float8eq(x, '0') then double precision '-Infinity' end;
end
$function$;

create or replace function dbscore.ieee_sqrt(x double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
as $function$
begin
    return case when pg_catalog.float8ge(x, '0') then pg_catalog.sqrt(x) end;
end
$function$;

create or replace function dbscore.ieee_power(x double precision, y double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
declare
    -- a fraction of a negative number has no power
    is_whole constant boolean := y = trunc(y);
    is_odd constant boolean := is_whole and abs(y) < 9007199254740992 and mod(y::numeric, 2) <> 0;
    power constant double precision := case when x <> 0 and abs(x) < 'Infinity' and abs(y) < 'Infinity' then y * ln(abs(x)) end;
begin
    if x = 0 and y < 0 then
        return 'Infinity';
    elsif x < 0 and not is_whole then
        return null;
    elsif power > 709.78 then
        return case when x < 0 and is_odd then '-Infinity' else 'Infinity' end;
    elsif power < -745.1 then
        return 0;
    end if;
    return power(x, y);
end
$function$;

create or replace function dbscore.ieee_add(x double precision, y double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
begin
    if x = 'NaN' or y = 'NaN' then
        return null;
    elsif abs(x) < 'Infinity' and abs(y) < 'Infinity' and sign(x) = sign(y) and abs(x) > 1.7976931348623157e308 - abs(y) then
        return case when x > 0 then 'Infinity' else '-Infinity' end;
    end if;
    return nullif(x + y, 'NaN');
end
$function$;

create or replace function dbscore.ieee_multiply(x double precision, y double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
declare
    power constant double precision := case when x <> 0 and y <> 0 and abs(x) < 'Infinity' and abs(y) < 'Infinity' then ln(abs(x)) + ln(abs(y)) end;
begin
    if x = 'NaN' or y = 'NaN' then
        return null;
    elsif power > 709.78 then
        return case when (x > 0) = (y > 0) then 'Infinity' else '-Infinity' end;
    elsif power < -744.4 then
        return 0;
    end if;
    return nullif(x * y, 'NaN');
end
$function$;

create or replace function dbscore.ieee_divide(x double precision, y double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
declare
    power constant double precision := case when x <> 0 and y <> 0 and abs(x) < 'Infinity' and abs(y) < 'Infinity' then ln(abs(x)) - ln(abs(y)) end;
begin
    if x = 'NaN' or y = 'NaN' then
        return null;
    elsif y = 0 then
        -- there is a zero of either sign
        return case when x <> 0 then case when (x > 0) = (y::text = '0') then 'Infinity' else '-Infinity' end end;
    elsif power > 709.78 then
        return case when (x > 0) = (y > 0) then 'Infinity' else '-Infinity' end;
    elsif power < -744.4 then
        return 0;
    end if;
    return nullif(x / y, 'NaN');
end
$function$;

create or replace function dbscore.ieee_affine(weights double precision[], numbers double precision[], constant double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
declare
    total double precision := 0;
begin
    for i in 1 .. cardinality(weights) loop
        total := dbscore.ieee_add(total, dbscore.ieee_multiply(weights[i], numbers[i]));
    end loop;
    return dbscore.ieee_add(total, constant);
end
$function$;

create or replace function dbscore.ieee_real(x double precision) returns real
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
begin
    -- halfway to the next real there would be, and half of the least there is
    return case
        when x = 'NaN' then null
        when abs(x) >= 3.4028235677973366e38 then case when x > 0 then 'Infinity' else '-Infinity' end::real
        when abs(x) <= 7.006492321624085e-46 then 0
        else x::real end;
end
$function$;

create or replace function dbscore.ieee_bigint(x double precision) returns bigint
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
begin
    return case when x >= -9223372036854775808::double precision and x < 9223372036854775808::double precision then x::bigint else -9223372036854775808 end;
end
$function$;

create or replace function dbscore.ieee_integer(x double precision) returns integer
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
begin
    return case when x > -2147483649::double precision and x < 2147483648::double precision then x::integer else -2147483648 end;
end
$function$;

create or replace function dbscore.check_number(
    version text, feature text, value double precision, null_policy text, takes_infinity boolean, largest double precision
) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    problem text;
begin
    if value = 'NaN' then
        problem := case when null_policy <> 'nan' then 'NaN, and the model was not trained with missing values' end;
    elsif value in ('Infinity', '-Infinity') then
        problem := case when not takes_infinity then value || ', which the model does not take' end;
    elsif abs(value) > largest then
        problem := format('%s, beyond the largest number that the model takes, %s', value, largest);
    end if;
    if problem is not null then
        raise exception '%: feature % is %', version, feature, problem
        using errcode = 'ML002', hint = 'Pass a finite number, or NULL for a NULL prediction.';
    end if;
end
$function$;

create or replace function dbscore.check_category(version text, feature text, value text, categories text[]) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
begin
    if value <> all (categories) then
        raise exception '%: feature % has the category %, unknown to the model', version, feature, left(value, 200)
        using errcode = 'ML002', hint = format(
            'Pass one of %s%s; or fit the encoder with handle_unknown=''ignore'' and deploy again.',
            array_to_string(categories[1:20], ', '), case when cardinality(categories) > 20 then ', ...' else '' end);
    end if;
end
$function$;

create or replace function dbscore.check_text(version text, feature text, value text, missing text, categories text[]) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
begin
    if value = missing then
        raise exception '%: feature % is %, the text that stands for a missing value in this model', version, feature, quote_literal(value)
        using errcode = 'ML002', hint = 'Pass NULL for a missing value.';
    end if;
    perform dbscore.check_category(version, feature, quote_literal(value), array(select quote_literal(c) from unnest(categories) c))
    where categories is not null;
end
$function$;

create or replace function dbscore.check_array(
    version text, feature text, numbers double precision[], width integer, null_policy text, takes_infinity boolean, largest double precision
) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    number double precision;
begin
    if numbers is null then
        return;
    elsif array_ndims(numbers) > 1 or cardinality(numbers) <> width then
        raise exception '%: feature % is an array %, not of % numbers', version, feature,
            case when array_ndims(numbers) > 1 then 'of more than one dimension' else format('of %s elements', cardinality(numbers)) end, width
        using errcode = 'ML002', hint = format('Pass a one-dimensional array of %s numbers.', width);
    elsif null_policy = 'null' and array_position(numbers, null) is not null then
        raise exception '%: feature % has a NULL as its element %', version, feature, array_position(numbers, null)
        using errcode = 'ML002', hint = 'Pass numbers only, or NULL for the whole array.';
    end if;
    foreach number in array numbers loop
        perform dbscore.check_number(version, feature, number, null_policy, takes_infinity, largest);
    end loop;
end
$function$;

-- what a function that takes an array has for a feature of another type than double precision
create or replace function dbscore.held_number(version text, feature text, type text, value double precision) returns double precision
language plpgsql immutable strict parallel safe cost 1
set search_path = pg_catalog, pg_temp
as $function$
begin
    if type = 'real' then
        -- half a step beyond the largest real is still rounded to it, and half of the least one to 0
        if abs(value) < 3.4028235677973366e38 or value in ('NaN', 'Infinity', '-Infinity') then
            return case when abs(value) > 7.006492321624085e-46 then value else 0 end;
        end if;
    elsif value = trunc(value) and (case type
        when 'boolean' then value between 0 and 1 when 'smallint' then value between -32768 and 32767
        when 'integer' then value between -2147483648 and 2147483647
        else value >= -9223372036854775808 and value < 9223372036854775808 end)
    then
        return value;
    end if;
    raise exception '%: feature % is %, which type % does not hold', version, feature, value, type
    using errcode = 'ML002', hint = 'Pass a number in the range of the feature''s type; a boolean is 0 or 1 in an array.';
end
$function$;

create or replace function dbscore.checked_numbers(version text, numbers double precision[], length integer) returns double precision[]
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $function$
begin
    if array_ndims(numbers) is distinct from 1 or cardinality(numbers) <> length then
        raise exception '%: the array has % elements, the model takes % numbers', version, cardinality(numbers), length
        using errcode = 'ML002', hint = 'Pass one number per feature, in the order that the function''s comment gives.';
    end if;
    -- whatever its bounds are: it is counted from 1
    return numbers[array_lower(numbers, 1):];
end
$function$;

comment on function dbscore.ieee_exp(double precision) is 'e to the power of a number: infinity and 0 where double precision ends.';
comment on function dbscore.ieee_ln(double precision) is 'The natural logarithm: minus infinity at 0, NULL below.';
comment on function dbscore.ieee_sqrt(double precision) is 'The square root: NULL below 0.';
comment on function dbscore.ieee_power(double precision, double precision) is 'A power: infinity and 0 where double precision ends, NULL where there is none.';
comment on function dbscore.ieee_add(double precision, double precision) is 'A sum: infinite where double precision ends, NULL for infinities that cancel.';
comment on function dbscore.ieee_multiply(double precision, double precision) is 'A product: infinity and 0 where double precision ends, NULL for 0 by infinity.';
comment on function dbscore.ieee_affine(double precision[], double precision[], double precision) is 'Numbers by their weights, added up, and a constant: infinity and 0 where double precision ends.';
comment on function dbscore.ieee_real(double precision) is 'A number as a real: infinity and 0 where reals end.';
comment on function dbscore.ieee_bigint(double precision) is 'A whole number as a bigint: the least there is for one that is too large.';
comment on function dbscore.ieee_integer(double precision) is 'A whole number as an integer: the least there is for one that is too large.';
comment on function dbscore.ieee_divide(double precision, double precision) is 'A quotient: infinite where the divisor is 0, NULL for 0 by 0.';
comment on function dbscore.check_number(text, text, double precision, text, boolean, double precision) is 'Refuses a number that a model does not take.';
comment on function dbscore.check_category(text, text, text, text[]) is 'Refuses a category that a model does not know.';
comment on function dbscore.check_text(text, text, text, text, text[]) is 'Refuses a text that a model does not take.';
comment on function dbscore.check_array(text, text, double precision[], integer, text, boolean, double precision) is 'Refuses an array that a model does not take.';
comment on function dbscore.held_number(text, text, text, double precision) is 'A number of an array, for a feature of another type.';
comment on function dbscore.checked_numbers(text, double precision[], integer) is 'A row of numbers of the right length.';
