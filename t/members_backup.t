#!/usr/bin/env perl

# Tests for backups that come and go: the first and the last of a pool, under
# load, and under balancers that know none.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_keepalive upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random
/);

my %KNOWN = (rr => '', least => 'least_conn;', keep => 'keepalive 8;');
my %UNKNOWN = (
	ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;',
);

$t->plan(99);

my %ALL = (%KNOWN, %UNKNOWN, map { ("load_$_" => $KNOWN{$_}) } keys %KNOWN);

$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 3;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    %%UPSTREAMS%%

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport;

        %%KEEPALIVE%%

        %%CONTROL%%

        %%BY_NAME%%
    }
}
CONF
	map { "upstream $_ { zone $_ 64k; $ALL{$_} server 127.0.0.1:8081; }\n" }
		sort keys %ALL);

my %backends = map { $_ => $t->backend("127.0.0.1:$_") } 8081 .. 8084;
$t->run();

# nginx's list of backups stays when it is empty.
$t->leak_keys('/status', 8080,
	pages => { map { $_ => 2 } map { ($_, "load_$_") } keys %KNOWN });

life($_) for sort keys %KNOWN;
refused($_) for sort keys %UNKNOWN;
loaded("load_$_") for sort keys %KNOWN;

sub act ($name, $args) {
	return control("/control?upstream=$name&$args");
}

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

sub answers ($name) {
	my $got = burst(uri => "/u/$name?key=a", n => 36, concurrency => 9);

	return join ' ', sort keys %{ $got->{by_body} },
		grep { $_ != 200 } keys %{ $got->{by_status} };
}

sub life ($name) {
	my @rows = (
		# arguments, status, who answers then
		[ 'add=&server=127.0.0.1:8083&backup=', 200, '8081' ],
		[ 'server=127.0.0.1:8081&down=', 200, '8083' ],
		[ 'add=&server=127.0.0.1:8084&backup=&weight=2', 200, '8083 8084' ],
		[ 'server=127.0.0.1:8083&drain=', 200, '8084' ],
		[ 'remove=&server=127.0.0.1:8084', 200, '502' ],
		[ 'server=127.0.0.1:8083&up=', 200, '8083' ],
		[ 'add=&server=127.0.0.1:8083', 412, '8083' ],
		[ 'add=&server=127.0.0.1:8081&backup=', 412, '8083' ],
		[ 'server=127.0.0.1:8083&backup=&weight=2', 400, '8083' ],
		[ 'remove=&server=127.0.0.1:8081', 200, '8083' ],
		[ 'remove=&server=127.0.0.1:8083', 200, '502' ],
		[ 'add=&server=127.0.0.1:8082&backup=', 200, '8082' ],
		[ 'add=&server=127.0.0.1:8081', 200, '8081' ],
		[ 'remove=&server=127.0.0.1:8082', 200, '8081' ],
	);

	is(answers($name), '8081', "$name: as configured");
	# Where lists have slots, backups have some from the beginning.
	is(($t->has_version('1.27.3') ? upstream($name)->{leaks}{backup}
		: upstream($name)->{leaks}{backup}{number} || undef), undef,
		"$name: no backups in a list");

	for my $row (@rows) {
		my ($args, $status, $who) = @$row;
		my $got = act($name, $args)->status();
		is("$got: " . answers($name), "$status: $who", "$name: $args");
	}

	# The same address may not be in both lists, but in one after the other.
	act($name, 'add=&server=127.0.0.1:8083&backup=');
	act($name, 'remove=&server=127.0.0.1:8083');
	is(act($name, 'add=&server=127.0.0.1:8083')->status(), 200,
		"$name: a primary that was a backup");
	is(answers($name), '8081 8083', "$name: serves as one");
	act($name, 'remove=&server=127.0.0.1:8083');
	is(act($name, 'add=&server=127.0.0.1:8083&backup=')->status(), 200,
		"$name: and a backup again");
	is(answers($name), '8081', "$name: serves nobody");

	my $peer = upstream($name)->{peers}[-1];
	act($name, "id=$peer->{id}&server=127.0.0.1:8084");
	act($name, 'server=127.0.0.1:8081&down=');
	is(answers($name), '8084', "$name: a backup that moved");
	is_deeply([ map { @$_{qw/id backup/} } upstream($name)->{peers}[-1] ],
		[ $peer->{id}, JSON::PP::true ], "$name: is one still");
	is(upstream($name)->{leaks}{backup}{number}, 1, "$name: one in the list");
	act($name, 'server=127.0.0.1:8081&up=');
	act($name, 'remove=&server=127.0.0.1:8084');
	is(scalar @{ upstream($name)->{peers} }, 1, "$name: one in the end");
}

sub refused ($name) {
	my $r = act($name, 'add=&server=127.0.0.1:8083&backup=');
	is($r->told(),
		'400 balancing method does not support parameter "backup"',
		"$name: no backups");
	is(upstream($name)->{revision}, 0, "$name: nothing was changed");
	is(answers($name), '8081', "$name: who serves");
}

# No request finds nobody: there is always a primary or a backup.
sub loaded ($name) {
	my $load = $t->load(uri => "/u/$name", seconds => 30, concurrency => 6,
		processes => 2);
	my $before = $backends{8083}->count();
	my %status;
	my $rounds = 0;

	# On a busy machine requests may miss the backup, but not for ever.
	while ($rounds++ < 12 || ($rounds < 200 && $backends{8083}->count() == $before)) {
		$status{ act($name, $_)->status() }++ for
			'add=&server=127.0.0.1:8083&backup=',
			'server=127.0.0.1:8081&down=',
			'add=&server=127.0.0.1:8084&backup=',
			'remove=&server=127.0.0.1:8083',
			'server=127.0.0.1:8081&up=',
			'remove=&server=127.0.0.1:8084';
	}

	my $got = $load->finish(now => 1);
	is_deeply([ keys %status ], [200], "$name: all changes were made");
	is($got->{failed}, 0, "$name: no request was lost");
	cmp_ok($got->{by_body}{8083} // 0, '>', 0, "$name: one backup served");
	is(answers($name), '8081', "$name: as in the beginning");
}
