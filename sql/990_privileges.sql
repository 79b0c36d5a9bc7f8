-- sql/990_privileges.sql: nothing for PUBLIC.
--
-- Replayed  whole, on every install and upgrade, after everything else
--
-- What a role may do comes from `dbscore grant` alone.

revoke all on schema dbscore, dbscore_compiled, experiments, {{models}} from public;
revoke all on all tables in schema dbscore from public;
revoke all on all routines in schema dbscore from public;
revoke all on all functions in schema dbscore_compiled, {{models}} from public;

comment on schema dbscore is 'dbscore: the registry of models, and the fixed functions.';
comment on schema dbscore_compiled is 'dbscore: what the functions of compiled versions call; nothing to call directly.';
comment on schema experiments is 'dbscore: the functions and the view of each experiment.';
comment on schema {{models}} is 'dbscore: generated functions only; each comment says which version it is.';
