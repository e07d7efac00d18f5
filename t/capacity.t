#!/usr/bin/env perl

# Tests for upstream_capacity, and for the places for servers that an upstream
# gets without it.  On nginx 1.27.3 and newer it means nothing, and is taken.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX ();
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone upstream_hash/);

my $old = !$t->has_version('1.27.3');
my $page = POSIX::sysconf(POSIX::_SC_PAGESIZE()) / 1024;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
events { }
http {
    %%TEST_GLOBALS_HTTP%%
    %%HTTP%%

    upstream u {
        zone z %%SIZE%%;
        %%UPSTREAM%%
        %%SERVERS%%
    }

    server {
        listen 127.0.0.1:8080;
        %%SERVER%%

        location / {
            proxy_pass http://u;
        }

        location /status {
            upstream_status;
        }
    }
}
CONF

# What is said of an upstream that has not got much room.
my $SMALL = qr/zone "z" has room for \d+ servers? of upstream "\w", which has \d+: raise the size of "zone" to add more/;

my %HOLES = (HTTP => '', UPSTREAM => '', SERVER => '', SIZE => '1m',
	SERVERS => servers(1));

words();
fits();
inherited();
shared();
default();
fewer();
unchangeable();
running();

$t->done_testing();

sub servers ($n, $more = '') {
	return join '', map { "server 127.0.0.1:$_$more;\n" } 9001 .. 9000 + $n;
}

sub check (%holes) {
	return $t->test_config($CONF, %HOLES, %holes);
}

# The configuration is taken; what is said of it at these levels, if anything.
# Notices are in the log only.
sub taken ($name, $said, %holes) {
	my $log = -e $t->testdir() . '/check.log' ? length $t->read_file('check.log')
		: 0;
	my ($code, $out) = check(%holes);
	$log = substr $t->read_file('check.log'), $log;
	my ($found) = $log =~ /^.*? \[(?:emerg|alert|crit|error|warn|notice)\] (.*)/m;

	is($code, 0, "$name: taken") or diag($out);
	if ($said) {
		like($found // '', qr/: $said\z/, "$name: what is said");
	} else {
		is($found, undef, "$name: nothing is said");
	}
}

# The configuration is refused; returns the size that would do, in kilobytes.
sub refused ($name, $n, $upstream, %holes) {
	my ($code, $out) = check(%holes);
	my ($size) = $out =~ / \[emerg\] .*"upstream_capacity $n" does not fit into zone "z" of upstream "$upstream": (\d+)k or more is needed/;

	is($code, 1, "$name: refused") or diag($out);
	ok($size, "$name: the size that would do") or diag($out);
	return $size // 0;
}

# Written right and wrong, on every nginx.
sub words {
	my @rows = (
		[ UPSTREAM => 'upstream_capacity 1;', 0, '' ],
		[ UPSTREAM => 'upstream_capacity 64;', 0, '' ],
		[ HTTP => 'upstream_capacity 100;', 0, '' ],
		[ UPSTREAM => 'upstream_capacity 0;', 1, 'invalid value "0"' ],
		[ UPSTREAM => 'upstream_capacity 100001;', 1,
			'invalid value "100001"' ],
		[ UPSTREAM => 'upstream_capacity -1;', 1, 'invalid value "-1"' ],
		[ UPSTREAM => 'upstream_capacity +1;', 1, 'invalid value "+1"' ],
		[ UPSTREAM => 'upstream_capacity 1k;', 1, 'invalid value "1k"' ],
		[ UPSTREAM => 'upstream_capacity "";', 1, 'invalid value ""' ],
		[ HTTP => 'upstream_capacity auto;', 1, 'invalid value "auto"' ],
		[ UPSTREAM => 'upstream_capacity;', 1,
			'invalid number of arguments' ],
		[ UPSTREAM => 'upstream_capacity 1 2;', 1,
			'invalid number of arguments' ],
		[ UPSTREAM => 'upstream_capacity 9; upstream_capacity 9;', 1,
			'"upstream_capacity" directive is duplicate' ],
		[ HTTP => 'upstream_capacity 9; upstream_capacity 8;', 1,
			'"upstream_capacity" directive is duplicate' ],
		[ SERVER => 'upstream_capacity 9;', 1, 'not allowed here' ],
	);

	for my $row (@rows) {
		my ($hole, $text, $wanted, $error) = @$row;
		my ($code, $out) = check($hole => $text);
		like("$code $out", qr/\A$wanted .*\Q$error\E/s, "$hole: $text");
	}
}

# The size that is named does, and a page less does not. Something may be SAID of
# what else is in the zone.
sub exact ($name, $n, $upstream, %holes) {
	my $said = delete $holes{SAID};
	return taken($name, undef, %holes) unless $old;

	my $size = refused($name, $n, $upstream, %holes, SIZE => '32k');
	is($size % $page, 0, "$name: whole pages");
	taken("$name: ${size}k", $said, %holes, SIZE => "${size}k");
	my $less = $size - $page;
	return $size if $size == 8 * $page;
	is(refused("$name: ${less}k", $n, $upstream, %holes, SIZE => "${less}k"),
		$size, "$name: and asks for as much");
	return $size;
}

sub fits {
	my $backup = "server 127.0.0.1:9500 backup;\n";
	my @rows = (
		[ 'a server', servers(1) ],
		[ 'a backup', servers(1) . $backup ],
		[ 'no backups', 'hash $uri; ' . servers(1) ],
		[ 'five servers', servers(5) ],
		[ 'options', servers(3, ' weight=3 max_fails=0 down') ],
		[ 'a long name', 'server unix:/' . 'x' x 100 . ';' ],
	);
	my %size;

	for my $row (@rows) {
		my ($name, $servers) = @$row;
		for my $n (40, 64, 500, 1000) {
			$size{"$name $n"} = exact("$name, $n", $n, 'u', SERVERS => $servers,
				UPSTREAM => "upstream_capacity $n;");
		}
	}
	exact('as many as there may be', 100_000, 'u',
		UPSTREAM => 'upstream_capacity 100000;');
	return unless $old;

	cmp_ok($size{'no backups 1000'}, '<', $size{'a server 1000'},
		'a balancer without backups needs less');
	cmp_ok($size{'no backups 1000'}, '<=', 1000, 'less than 1k each');
}

sub inherited {
	my %small = (SIZE => '64k', HTTP => 'upstream_capacity 200;');

	$old ? refused('from http', 200, 'u', %small)
		: taken('from http', undef, %small);
	taken('the own word counts', undef, %small,
		UPSTREAM => 'upstream_capacity 10;');
	$old ? refused('the own word counts, if larger', 201, 'u', %small,
			UPSTREAM => 'upstream_capacity 201;')
		: taken('the own word counts, if larger', undef, %small,
			UPSTREAM => 'upstream_capacity 201;');
}

# All upstreams of a zone count, whether they can be changed or not.
sub shared {
	my $other = sub ($what) {
		return "upstream v { zone z; $what " . servers(30) . '}';
	};
	my %holes = (UPSTREAM => 'upstream_capacity 100;');
	my $alone = exact('alone', 100, 'u', %holes);
	my $two = exact('beside another', 100, 'u', %holes, HTTP => $other->(''),
		SAID => $SMALL);
	my $static = exact('beside a static one', 100, 'u', %holes,
		HTTP => $other->('upstream_dynamic off;'));
	my $three = exact('beside one that wants as many', 100, '[uv]', %holes,
		HTTP => $other->('upstream_capacity 100;'));

	# The first that does not fit is named.
	my ($code, $out) = check(%holes, SIZE => '32k',
		HTTP => 'upstream v { zone z; upstream_capacity 1; server 127.0.0.1:1; }');
	return is($code, 0, 'nothing is asked for') unless $old;

	like($out, qr/"upstream_capacity 100" .* of upstream "u"/,
		'the one that does not fit is named');
	cmp_ok($alone, '<', $static, 'servers of a static upstream need room');
	cmp_ok($static, '<', $three, 'so do those that may come');
	cmp_ok($two, '<', $three, 'what takes what is left asks for nothing');
}

# What loads without the module loads with it, and there is room for more.
sub default {
	for my $backup ('', "server 127.0.0.1:9500 backup;\n") {
		my $name = $backup ? 'a backup' : 'no backup';
		taken("64k, 5 servers, $name", undef, SIZE => '64k',
			SERVERS => servers(5) . $backup);
		taken("32k, 1 server, $name", undef, SIZE => '32k',
			SERVERS => servers(1) . $backup);
		taken("1m, 200 servers, $name", undef,
			SERVERS => servers(200) . $backup);
	}
	my $said = $old && $SMALL;
	taken('64k, 30 servers', $said, SIZE => '64k', SERVERS => servers(30));
	taken('several upstreams in 32k', $said, SIZE => '32k', HTTP => join '',
		map { "upstream $_ { zone z; server 127.0.0.1:8081; }\n" } 'a' .. 'd');
	taken('32k, 12 servers', $said, SIZE => '32k', SERVERS => servers(12));
	taken('64k, 30 servers, static', undef, SIZE => '64k',
		SERVERS => servers(30), UPSTREAM => 'upstream_dynamic off;');

	# Up to the last server that a zone holds without the module.
	my ($most) = grep { (check(SIZE => '32k', SERVERS => servers($_),
		UPSTREAM => 'upstream_dynamic off;'))[0] } 10 .. 40;
	my @refused = grep { (check(SIZE => '32k', SERVERS => servers($_)))[0] }
		1 .. $most - 1;
	is_deeply(\@refused, [], 'all that nginx takes is taken: ' . ($most - 1)
		. ' servers in 32k');
}

sub fewer {
	my $said = $old && qr/"upstream_capacity 3" is less than the 5 servers of upstream "u", which count instead/;

	taken('fewer than there are', $said, SERVERS => servers(5),
		UPSTREAM => 'upstream_capacity 3;');
	taken('as many as there are', undef, SERVERS => servers(5),
		UPSTREAM => 'upstream_capacity 5;');
	taken('the same in a small zone', $said, SIZE => '64k',
		SERVERS => servers(5), HTTP => 'upstream_capacity 3;');
}

# Nothing is made for what cannot be changed.
sub unchangeable {
	my $many = 'upstream_capacity 100000;';

	taken('switched off', undef, SIZE => '32k', UPSTREAM => $many,
		HTTP => 'upstream_dynamic off;');
	taken('without a zone', undef, HTTP => "upstream v { $many "
		. servers(3) . '}');
	taken('an address', undef, HTTP => 'upstream_capacity 64;',
		SERVER => 'location /direct { proxy_pass http://127.0.0.1:9001; }');
}

# With the size that was asked for nginx runs, and a page is left.
sub running {
	my ($n, $size) = (500, '1m');
	my %holes = (UPSTREAM => "upstream_capacity $n;",
		SERVERS => 'server 127.0.0.1:8081; server 127.0.0.1:8082 down;');

	$size = refused('to run', $n, 'u', %holes, SIZE => '32k') . 'k' if $old;
	$t->write_file_expand('nginx.conf', $CONF, %HOLES, %holes, SIZE => $size);
	$t->backend('127.0.0.1:8081');
	$t->run();

	is(http_get('/')->body(), '8081', 'a request is served');
	is(http_get('/')->status(), 200, 'and another');
	my $u = get_json('/status')->{upstreams}{u};
	ok($u->{dynamic}, 'it can be changed');
	my $free = $u->{zone_memory}{pages}{free};
	return pass('there is more than enough') unless $old;

	cmp_ok($free, '>=', 1, 'a page is left');
	cmp_ok($free, '<=', 3, 'and hardly more');
}
