#!/usr/bin/env perl

# Tests for servers that come and go by upstream_control, in the form of
# ngx_dynamic_upstream: codes, texts, and that every worker follows at once.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/module http proxy upstream_zone unix ipv6/);

$t->plan(107);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 4;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    proxy_connect_timeout 2s;

    upstream u {
        zone u_zone 128k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 weight=2;
        server 127.0.0.1:8083 backup;
    }

    upstream none { zone none 64k; server 0.0.0.0:1; }
    upstream none6 { zone none6 64k; server [::]:1; upstream_guard min=1; }
    upstream some { zone some 64k; server 0.0.0.0:8081; }

    upstream plain { server 127.0.0.1:8081; }

    upstream off {
        zone off 64k;
        upstream_dynamic off;
        server 127.0.0.1:8081;
    }

    upstream hash {
        zone hash 64k;
        hash $arg_key;
        server 127.0.0.1:8081;
    }

    server {
        # Gives each worker its share of the connections.
        listen 127.0.0.1:8080 reuseport;

        add_header X-Worker $pid always;

        location /control {
            upstream_control;
        }

        location /post {
            upstream_control methods=POST;
        }

        location /status {
            upstream_status;
        }

        %%BY_NAME%%
    }
}
CONF

my $OTHER = q(can't change server type (primary<->backup));
my $DOMAIN = 'host name "';
my $NEEDED = q('server' argument required);

$t->backend($_) for map({ "127.0.0.1:$_" } 8081 .. 8084), '[::1]:8087',
	'unix:%%TESTDIR%%/new.sock';
$t->run();
$t->leak_keys('/status', 8080, pages => { u => 1 });

codes();
refused();
forms();
log_lines();
json();
traffic();
every_worker();
placeholder();

sub act ($args, $name = 'u') {
	return control("/control?upstream=$name&" . $t->expand($args));
}

sub upstream ($name = 'u') {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

sub text ($r) { return $r->told() }

# Who answers, in all workers.
sub answers ($name, $n = 48) {
	my $got = burst(uri => "/u/$name", n => $n, concurrency => 12);

	return join ' ', ($got->{failed} ? 'failed' : ()),
		sort keys %{ $got->{by_body} };
}

# The whole life of some servers: each row sees what those before it left.
sub codes {
	my @list = (
		'server 127.0.0.1:8081 addr=127.0.0.1:8081;',
		'server 127.0.0.1:8082 addr=127.0.0.1:8082;',
		'server 127.0.0.1:8083 addr=127.0.0.1:8083 backup;',
	);
	my $sock = $t->expand('unix:%%TESTDIR%%/new.sock');
	my @rows = (
		# arguments, status, line that comes to its place, or text
		[ 'add=&server=127.0.0.1:8084', 200, 2 =>
			'server 127.0.0.1:8084 addr=127.0.0.1:8084;' ],
		[ 'add=&server=127.0.0.1:8084', 304 ],
		[ 'add=1&server=127.0.0.1:8084&weight=7', 304 ],
		[ 'add=&server=127.0.0.1:8084&backup=', 412, $OTHER ],
		[ 'add=&server=127.0.0.1:8083', 412, $OTHER ],
		[ 'add=&server=127.0.0.1:8083&backup=', 304 ],
		[ 'add=&server=127.0.0.1:8085&backup', 200, 4 =>
			'server 127.0.0.1:8085 addr=127.0.0.1:8085 backup;' ],
		[ 'server=127.0.0.2&add', 200, 3 =>
			'server 127.0.0.2 addr=127.0.0.2:80;' ],
		[ 'add=&server=127.0.0.2:80', 304 ],
		[ 'add=&ipv6=&server=[::1]:8087', 200, 4 =>
			'server [::1]:8087 addr=[::1]:8087;' ],
		[ 'add=&server=[0:0:0::1]:%%PORT_8087%%', 304 ],
		[ "add=&server=$sock", 200, 5 => "server $sock addr=$sock;" ],
		[ "add=&server=$sock", 304 ],
		[ 'remove=&server=127.0.0.1:8089', 304 ],
		[ 'remove=&server=nobody', 304 ],
		[ 'remove=&id=99', 304 ],
		[ 'remove=&server=127.0.0.2', 200, 3 ],
		[ 'remove=&server=127.0.0.2', 304 ],
		[ 'remove=&server=[::1]:8087', 200, 3 ],
		[ "remove=&server=$sock", 200, 3 ],
		[ 'remove=&server=127.0.0.1:8085', 200, 4 ],
		[ 'remove=&peer=2', 200, 2 ],
		[ 'remove=&peer=2', 400, 'bad peer id: 2' ],
		[ 'add=&server=127.0.0.1:8081', 304 ],
	);

	for my $row (@rows) {
		my ($args, $status, @rest) = @$row;
		my $wanted = '';

		if ($status == 200) {
			splice @list, $rest[0], $rest[1] ? 0 : 1, $rest[1] // ();
			$wanted = join '', map { "$_\n" } @list;
			# Positions move when servers leave.
			$wanted .= "# peer=2 is server 127.0.0.1:8084 id=3\n" if $args eq 'remove=&peer=2';
		}
		elsif ($status != 304) {
			$wanted = $rest[0];
		}

		is(text(act($args)), "$status $wanted", $args);
	}

	is(act('')->body(), join('', map { "$_\n" } @list), 'as in the beginning');
}

sub refused {
	my $revision = upstream()->{revision};
	my $mark = $t->log_mark();
	my @rows = (
		[ u => 'add=', 400, $NEEDED ],
		[ u => 'add=&server=', 400, $NEEDED ],
		[ u => 'remove=', 400, $NEEDED ],
		[ u => 'remove=&server=', 400, $NEEDED ],
		[ u => 'backup=&server=127.0.0.1:8081&weight=2', 400,
			'backup: only for a server that is added' ],
		[ u => 'remove=&backup=&server=127.0.0.1:8083', 400,
			'backup: only for a server that is added' ],
		[ u => 'add=&remove=&server=127.0.0.1:8084', 400,
			'add and remove at once are not allowed' ],
		[ u => 'add=0&server=127.0.0.1:8084', 400,
			'invalid value "0" in "add"' ],
		[ u => 'add=&peer=0&server=127.0.0.1:8084', 400,
			'add and peer at once are not allowed' ],
		[ u => 'add=&servers=127.0.0.1:8084', 400,
			'add and servers at once are not allowed' ],
		[ u => 'remove=&servers=127.0.0.1:8081', 400,
			'remove and servers at once are not allowed' ],
		[ u => 'remove=&server=127.0.0.1:8081&down=', 400,
			'remove and down at once are not allowed' ],
		[ u => 'remove=&server=127.0.0.1:8081&weight=2', 400,
			'remove and weight at once are not allowed' ],
		[ u => 'add=&server=app.example.com', 400, $DOMAIN ],
		[ u => 'add=&server=app.example.com:80&backup=', 400, $DOMAIN ],
		[ u => 'add=&server=1.2.3', 400,
			'invalid address "1.2.3": not an ip address' ],
		[ u => 'add=&server=127.0.0.1:0', 400,
			'invalid address "127.0.0.1:0": port must be between 1 and 65535' ],
		[ u => 'add=&server=127.0.0.1:65536', 400,
			'invalid address "127.0.0.1:65536": port must be between 1 and 65535' ],
		[ u => 'add=&server=::1', 400,
			'invalid address "::1": an ipv6 address needs brackets' ],
		[ u => 'add=&server=[::1%25lo]:80', 400,
			'invalid address "[::1%lo]:80": ipv6 zone ids are not supported' ],
		[ u => 'add=&server=unix:', 400,
			'invalid address "unix:": no path in the unix domain socket' ],
		[ u => 'add=&server=unix:/' . 'x' x 107, 400, 'invalid address "unix:/'
			. 'x' x 58 . '...": too long path in the unix domain socket' ],
		[ u => 'add=&server=127.0.0.1:8084%20', 400, 'invalid address '
			. '"127.0.0.1:8084 ": white space or control character' ],
		[ u => 'add=&server=127.0.0.1:8084%0a', 400,
			'control character in "server=127.0.0.1:8084%0a"' ],
		[ u => 'add=&server=127.0.0.1:8084&weight=0', 400,
			'invalid weight "0": use drain or down to stop new requests' ],
		[ u => 'add=&server=127.0.0.1:8084&weight=x', 400,
			'weight: not a number' ],
		[ u => 'add=&server=127.0.0.1:8084&up=&down=', 400,
			'down and up at once are not allowed' ],
		[ hash => 'add=&server=127.0.0.1:8084&backup=', 400,
			'balancing method does not support parameter "backup"' ],
		[ nope => 'add=&server=127.0.0.1:8084', 404, 'upstream is not found' ],
		[ nope => 'remove=&server=127.0.0.1:8084', 404,
			'upstream is not found' ],
		[ plain => 'add=&server=127.0.0.1:8084', 501,
			q(only for upstream with 'zone') ],
		[ plain => 'remove=&server=127.0.0.1:8081', 501,
			q(only for upstream with 'zone') ],
		[ off => 'add=&server=127.0.0.1:8084', 501,
			'upstream is static: "upstream_dynamic off" is set' ],
	);

	for my $row (@rows) {
		my ($name, $args, $status, $text) = @$row;
		like(text(act($args, $name)), qr/\A\Q$status $text\E/, "$name: $args");
	}

	is(upstream()->{revision}, $revision, 'none was a change');
	is(scalar $t->grep_log(qr/\[notice\]/, $mark), 0, 'nor logged as one');
}

sub forms {
	my %form = (map_ports => 1, method => 'POST', headers => {
		'Content-Type' => 'application/x-www-form-urlencoded',
	});
	my $add = 'upstream=u&add=&server=127.0.0.1:8084';

	is(control("/post?$add")->status(), 405, 'methods=POST');
	is(http_post('/post', $add, %form)->status(), 200, 'form');
	is(http_post('/post', $add, %form)->status(), 304, 'form again');
	is(http_post('/control?upstream=u', 'remove=&server=127.0.0.1:8084', %form)
		->status(), 200, 'form and query');
	is(http_head('/control?upstream=u&remove=&peer=0')->status(), 405, 'HEAD');
	like(act('add=&server=127.0.0.1:8084&weight=3&max_conns=4&max_fails=5'
			. '&fail_timeout=1m&drain=')->body(),
		qr/^server 127.0.0.1:8084 addr=127.0.0.1:8084 weight=3 max_fails=5 fail_timeout=60 max_conns=4 conns=0 draining;$/m,
		'with all parameters');
	is(act('remove=&peer=127.0.0.1:8084')->status(), 200, 'peer= with a text');
	is(act('add=&server=127.0.0.1:8084', 'u_zone')->status(), 200,
		'by the name of the zone');
	act('remove=&server=127.0.0.1:8084');
}

sub log_lines {
	my $revision = upstream()->{revision};
	my @rows = (
		[ 'add=&server=127.0.0.1:8084&note=new', 'added, weight 1, max_conns 0, '
			. 'max_fails 1, fail_timeout 10', ', note: "new"' ],
		[ 'add=&server=127.0.0.1:8084', undef ],
		[ 'remove=&server=127.0.0.1:8084',
			'removed, 0 requests are still served' ],
		[ 'add=&server=127.0.0.1:8084&backup=&down=&weight=2',
			'added, weight 2, max_conns 0, max_fails 1, fail_timeout 10, backup, state down' ],
		[ 'remove=&server=127.0.0.1:8084&note=x',
			'removed, 0 requests are still served', ', note: "x"' ],
	);

	for my $row (@rows) {
		my ($args, $what, $note) = (@$row, '');
		my $mark = $t->log_mark();
		act($args);
		my @lines = map { $t->logical($_) } $t->grep_log(qr/\[notice\]/, $mark);
		$revision++ if $what;
		like("@lines", $what
			? qr/\A[^"]+ upstream "u" server "127.0.0.1:8084": $what, revision $revision$note, client: 127.0.0.1, server: (?!.*revision)/
			: qr/\A\z/, "log: $args");
	}
}

sub json {
	my $got = act('add=&server=127.0.0.1:8084&weight=3&format=json')->json();
	my $revision = $got->{revision};
	is_deeply([ $got->{upstream}, $got->{server}{server},
		@{ $got->{server} }{qw/weight state backup/} ],
		[ 'u', '127.0.0.1:8084', 3, 'up', JSON::PP::false ], 'JSON of an addition');
	is_deeply(act('add=&server=127.0.0.1:8084&format=json')->json(),
		{ upstream => 'u', revision => $revision,
			unchanged => 'server "127.0.0.1:8084" exists' },
		'nothing to do');

	my $gone = act('remove=&server=127.0.0.1:8084&format=json')->json();
	is_deeply([ @{ $gone->{removed} }{qw/id server active/},
		@$gone{qw/revision left/}, scalar @{ $gone->{servers} } ],
		[ $got->{server}{id}, '127.0.0.1:8084', 0, $revision + 1, 3, 3 ],
		'JSON of a removal');
	is_deeply(act('add=&server=app&format=json')->json()->{error},
		{ status => 400, code => 'BadArgument', text => $DOMAIN
			. 'app" where an address is needed' }, 'an error');
}

# Of each kind of address, as a primary and as a backup.
sub traffic {
	for my $server ('127.0.0.1:8084', '[::1]:8087',
			'unix:%%TESTDIR%%/new.sock') {
		my $tag = $server =~ s{.*[:/]}{}r;
		act("add=&server=$server");
		is(answers('u'), join(' ', sort 8081, 8082, $tag), "$server: serves");
		act("remove=&server=$server");
		is(answers('u'), '8081 8082', "$server: no more");

		act("add=&backup=&server=$server");
		act('servers=127.0.0.1:8081,127.0.0.1:8082&down=');
		is(answers('u'), join(' ', sort 8083, $tag), "$server: backup");
		act("remove=&server=$server");
		is(answers('u'), '8083', "$server: no backup");
		act('servers=127.0.0.1:8081,127.0.0.1:8082&up=');
	}
}

# Whichever worker makes a change, each of them balances by it when the reply
# is here.
sub every_worker {
	my (%makers, %readers);
	my $late = 0;

	for my $i (1 .. 60) {
		my ($verb, $wanted) = $i % 2 ? ('add', 3) : ('remove', 2);
		my $r = act("$verb=&server=127.0.0.1:8084");
		$makers{ $r->header('X-Worker') } = 1;

		for (1 .. 4) {
			my $shown = http_get('/status?upstream=u');
			$readers{ $shown->header('X-Worker') } = 1;
			my @primaries = grep { !$_->{backup} }
				@{ $shown->json()->{upstreams}{u}{peers} };
			$late++ if @primaries != $wanted;
		}

		my $served = answers('u', 12) =~ /8084/ ? 3 : 2;
		$late++ if $served != $wanted;
	}

	is(keys %makers, 4, 'every worker made changes');
	is(keys %readers, 4, 'every worker was asked');
	is($late, 0, 'none was late');
	is(answers('u'), '8081 8082', 'as in the beginning');
}

# The server by which older modules say that there is none.
sub placeholder {
	for my $name (qw/none none6/) {
		is(text(act('', $name)), '200 ', "$name: nothing is listed");
		is_deeply(upstream($name)->{peers}, [], "$name: nor shown");
		like(text(act('peer=0&down=', $name)), qr/\A400 /, "$name: nor changed");
		my $mark = $t->log_mark();
		is(text(act('add=&server=127.0.0.1:8082', $name)),
			"200 server 127.0.0.1:8082 addr=127.0.0.1:8082;\n",
			"$name: gone with the first addition");
		is(scalar $t->grep_log(qr/\[notice\].*upstream "$name"/, $mark), 1,
			"$name: which is all that is logged");
		is_deeply(burst(uri => "/u/$name", n => 12)->{by_body}, { 8082 => 12 },
			"$name: it serves");
	}

	is(scalar @{ upstream('some')->{peers} }, 1, 'another port is a server');
	is(text(act('server=127.0.0.1:8082&down=', 'none')) =~ s/ down;.*//sr,
		'200 server 127.0.0.1:8082 addr=127.0.0.1:8082 weight=1 max_fails=1 '
		. 'fail_timeout=10 max_conns=0 conns=0', 'changed as any');
	$t->leak_baseline();
}
