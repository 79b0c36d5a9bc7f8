-- sql/057_probabilities.sql: probabilities that PostgreSQL has no functions for.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     nothing
--
-- dbscore.upper_gamma(a, x)        the regularised upper incomplete gamma function, for a = 1/2, 1, 3/2 ...
-- dbscore.normal_p(z)              the probability of a standard normal number further from 0 than z
-- dbscore.chi_square_p(x, df)      the probability of a chi-square number above x
-- Source: the series and the continued fraction of https://dlmf.nist.gov/8.11.E4 and https://dlmf.nist.gov/8.9.E2

create or replace function dbscore.upper_gamma(a double precision, x double precision) returns double precision
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    -- ln of gamma(a), from gamma(1/2) or gamma(1) upwards
    log_gamma double precision := case when a = trunc(a) then 0 else ln(pi()) / 2 end;
    step double precision := case when a = trunc(a) then 1 else 0.5 end;
    term double precision;
    total double precision;
    b double precision;
    c double precision;
    d double precision;
    change double precision;
begin
    if x <= 0 then
        return 1;
    elsif x > 700 + a then
        return 0;
    end if;
    while step < a
    loop
        log_gamma := log_gamma + ln(step);
        step := step + 1;
    end loop;
    if x < a + 1 then
        term := 1 / a;
        total := term;
        for i in 1 .. 500
        loop
            term := term * x / (a + i);
            total := total + term;
            exit when abs(term) < abs(total) * 1e-17;
        end loop;
        return 1 - total * exp(a * ln(x) - x - log_gamma);
    end if;
    b := x + 1 - a;
    c := 1e300;
    d := 1 / b;
    total := d;
    for i in 1 .. 500
    loop
        b := b + 2;
        d := 1 / (b - i * (i - a) * d);
        c := b - i * (i - a) / c;
        change := c * d;
        total := total * change;
        exit when abs(change - 1) < 1e-16;
    end loop;
    return total * exp(a * ln(x) - x - log_gamma);
end
$function$;

create or replace function dbscore.normal_p(z double precision) returns double precision
language sql immutable parallel safe
return dbscore.upper_gamma(0.5::float8, z * z / 2);

create or replace function dbscore.chi_square_p(x double precision, df bigint) returns double precision
language sql immutable parallel safe
return case when df > 0 then dbscore.upper_gamma(df / 2.0::float8, x / 2) end;

comment on function dbscore.upper_gamma(double precision, double precision) is 'The regularised upper incomplete gamma function, for halves and whole numbers.';
comment on function dbscore.normal_p(double precision) is 'The probability of a standard normal number further from 0 than z.';
comment on function dbscore.chi_square_p(double precision, bigint) is 'The probability of a chi-square number above x.';
