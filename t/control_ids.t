#!/usr/bin/env perl

# Tests for the ways to say which server is meant: its id, which is answered in
# the lines of NGINX Plus's upstream_conf, its position, the text of its
# directive, its address, and several at once.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Socket qw/getaddrinfo/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Names qw/name_server/;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone unix ipv6/)
	->plan(111);

# A name that stands for two addresses has two peers with the same text.
my ($error, @found) = getaddrinfo('localhost', 80, { socktype => 1 });
my $two_addresses = @found == 2;

my $resolve = $t->has_module_built('resolve');

$t->write_file_expand('nginx.conf', <<'CONF', RESOLVE => $resolve ? <<'RESOLVE' : '');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082 backup;
        server [::1]:8083 weight=2 max_fails=3 fail_timeout=20s max_conns=5;
        server unix:%%TESTDIR%%/backend.sock down;
        server 127.0.0.1:8084 backup down;
    }

    # The same server twice; the third differs in its text only.
    upstream twice {
        zone twice 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8081 weight=2;
        server 127.1:%%PORT_8081%%;
        server 127.0.0.1:8081 backup;
    }

    upstream named {
        zone named 64k;
        server localhost:8081;
        server 127.0.0.1:8082;
    }

    upstream one {
        zone both 64k;
        server 127.0.0.1:8081;
    }

    upstream other {
        zone both;
        server 127.0.0.1:8082;
    }

    %%RESOLVE%%

    server {
        listen 127.0.0.1:8080;

        %%CONTROL%%

        location /u {
            proxy_pass http://u;
        }

        location /twice {
            proxy_pass http://twice;
        }
    }
}
CONF
    resolver 127.0.0.1:8053 valid=1s ipv6=off;
    resolver_timeout 1s;

    upstream resolved {
        zone resolved 64k;
        server app.test:%%PORT_8081%% resolve;
        server 127.0.0.1:8082;
    }
RESOLVE

$t->backend($_) for '127.0.0.1:8081', '127.0.0.1:8082', '[::1]:8083',
	'unix:%%TESTDIR%%/backend.sock';
my @answer = ('127.0.0.1', '127.0.0.2');
$t->write_file('addresses', "@answer");
$t->run_daemon(\&name_server, $t->testdir(), port(8053));
$t->run();
$t->leak_keys('/status', 8080);

ids();
letters();
lines();
positions();
texts();
verbs();
duplicates();
several();
names();
resolved();

sub act ($args, $upstream = 'u') {
	my $r = control("/control?upstream=$upstream&" . $t->expand($args));
	return $r->told();
}

sub upstream ($name) {
	return get_json("/status?upstream=$name")->{upstreams}{$name};
}

sub states ($name = 'u') {
	return join ' ', map { $_->{state} } @{ upstream($name)->{peers} };
}

# From 0 in the order of the lists.
sub ids {
	is_deeply([ map { [ $_->{id}, $t->logical($_->{server} =~ s{.*/}{}r) ] }
		@{ upstream('u')->{peers} } ], [
		[ 0, '127.0.0.1:8081' ], [ 1, '[::1]:8083' ], [ 2, 'backend.sock' ],
		[ 3, '127.0.0.1:8082' ], [ 4, '127.0.0.1:8084' ],
	], 'ids');
	is_deeply([ map { $_->{id} } @{ upstream('twice')->{peers} } ],
		[ 0 .. 3 ], 'of each upstream for itself');
}

sub lines {
	my $dir = $t->testdir();
	my @rows = (
		[ 'id=0', 'server 127.0.0.1:8081; # id=0' ],
		[ 'id=1', 'server [::1]:8083 weight=2 max_conns=5 max_fails=3 fail_timeout=20s; # id=1' ],
		[ 'id=2', "server unix:$dir/backend.sock down; # id=2" ],
		[ 'id=3', 'server 127.0.0.1:8082 backup; # id=3' ],
		[ 'id=4', 'server 127.0.0.1:8084 backup down; # id=4' ],
		[ 'id=0&verbose=', 'server 127.0.0.1:8081; # id=0' ],
		[ 'id=00', 'server 127.0.0.1:8081; # id=0' ],

		[ 'id=0&drain=1', 'server 127.0.0.1:8081; # id=0 draining' ],
		[ 'id=0&drain=', 'server 127.0.0.1:8081; # id=0 draining' ],
		[ 'id=0&down=', 'server 127.0.0.1:8081 down; # id=0' ],
		[ 'id=0&up=&weight=5', 'server 127.0.0.1:8081 weight=5; # id=0' ],
		[ 'id=0&weight=1&max_conns=3&max_fails=0&fail_timeout=1h',
			'server 127.0.0.1:8081 max_conns=3 max_fails=0 fail_timeout=3600s; # id=0' ],
		[ 'id=0&max_conns=0&max_fails=1&fail_timeout=10s',
			'server 127.0.0.1:8081; # id=0' ],
		[ 'id=1&weight=1', 'server [::1]:8083 max_conns=5 max_fails=3 fail_timeout=20s; # id=1' ],
		[ 'id=1&weight=2&drain=', 'server [::1]:8083 weight=2 max_conns=5 max_fails=3 fail_timeout=20s; # id=1 draining' ],
		[ 'id=1&up=', 'server [::1]:8083 weight=2 max_conns=5 max_fails=3 fail_timeout=20s; # id=1' ],
		[ 'id=2&up=', "server unix:$dir/backend.sock; # id=2" ],
		[ 'id=2&down=', "server unix:$dir/backend.sock down; # id=2" ],
		[ 'id=4&up=', 'server 127.0.0.1:8084 backup; # id=4' ],
		[ 'id=4&down=', 'server 127.0.0.1:8084 backup down; # id=4' ],
	);

	for my $row (@rows) {
		my ($args, $line) = @$row;
		is(act($args), "200 $line\n", $args);
	}

	like(act($_), qr/\A400 server or peer is not found: "\d+"\z/, $_)
		for qw/id=5 id=5&down= id=18446744073709551615/;
	is(act('id=1', 'u_zone'), "200 $rows[1][1]\n", 'by the name of the zone');
}

# Case means nothing in names of upstreams and hosts, and a zone of several
# upstreams is none of them.
sub letters {
	like(act('peer=0', 'U'), qr/\A200 server /, 'an upstream in capitals');
	like(act('peer=0', 'U_ZONE'), qr/\A404 /, 'but not a zone');
	like(act('server=LOCALHOST:8081&weight=2', 'NAMED'), qr/ weight=2 /,
		'a host in capitals');
	act('server=localhost:8081&weight=1', 'named');

	for my $args ('peer=0&down=', 'verbose=') {
		my $r = control("/control?upstream=both&$args");
		is($r->told(),
			'409 several upstreams have zone "both", choose one by name: '
			. '"one", "other"', "a shared zone: $args");
	}
	is(states('one') . ' ' . states('other'), 'up up', 'nothing was changed');
	is(http_get('/status?upstream=both')->status(), 409, 'in the status, too');
}

# Among primaries; digits are a position, all else is a server.
sub positions {
	like(act('peer=1&down='), qr/\A200 .*^server \[::1\]\S* .* down;$/ms,
		'position 1');
	is(states(), 'up down down up down', 'is the second primary');
	is(act('peer=3&down='), '400 bad peer id: 3', 'backups have none');
	like(act('peer=[::1]:8083&up='), qr/\A200 /, 'peer= with an address');
	is(states(), 'up up down up down', 'is that server');
	is(act('peer=8083&up='), '400 bad peer id: 8083', 'a port is not an address');
}

# The text of the directive, the address, and other ways to write it.
sub texts {
	my @rows = (
		[ '127.0.0.1:8082', 3 ],
		[ '[::1]:8083', 1 ],
		[ '[0:0:0:0:0:0:0:1]:%%PORT_8083%%', 1 ],
		[ '[::0001]:%%PORT_8083%%', 1 ],
		[ 'unix:%%TESTDIR%%/backend.sock', 2 ],
		[ '127.0.0.1:0%%PORT_8082%%', 3 ],
	);

	for my $row (@rows) {
		my ($server, $i) = @$row;
		my @states = qw/up up down up down/;
		$states[$i] = 'draining';

		act("server=$server&drain=");
		is(states(), "@states", "server=$server");
		act("server=$server&" . ($i == 2 ? 'down=' : 'up='));
	}

	like(act("server=$_&down="), qr/\A400 server or peer is not found: /, $_) for
		'127.0.0.1', '127.0.0.1:80', '[::1]', '::1', 'localhost:8081',
		'unix:%%TESTDIR%%/backend', '*', '%20';
	is(states(), 'up up down up down', 'nothing was changed');
}

# Each verb for each kind of address, in each way to name one server.
sub verbs {
	my @verbs = (
		[ 'down=', state => 'down' ], [ 'up=', state => 'up' ],
		[ 'drain=', state => 'draining' ], [ 'weight=7', weight => 7 ],
		[ 'max_conns=8', max_conns => 8 ], [ 'max_fails=9', max_fails => 9 ],
		[ 'fail_timeout=10m', fail_timeout => '600s' ],
	);
	my @servers = ('127.0.0.1:8081', '[::1]:8083',
		'unix:%%TESTDIR%%/backend.sock', '127.0.0.1:8082');

	for my $verb (@verbs) {
		my ($args, $key, $value) = @$verb;

		for my $by (qw/server servers peer id/) {
			my @before = map { $_->{$key} } @{ upstream('u')->{peers} };

			for my $i (0 .. 3) {
				my $which = $by eq 'id' ? $i : $servers[$i];
				act("$by=$which&$args");
			}

			is_deeply([ map { $_->{$key} } @{ upstream('u')->{peers} } ],
				[ ($value) x 4, $before[4] ], "$by=: $args");

			# As the configuration has it, for the next round.
			act('id=1&up=&weight=2&max_conns=5&max_fails=3&fail_timeout=20s');
			act("id=$_&up=&weight=1&max_conns=0&max_fails=1&fail_timeout=10s")
				for 0, 2, 3;
			act('id=2&down=');
		}
	}
}

# A text that fits several servers means all of them, an id means one.
sub duplicates {
	my $share = sub {
		my $got = burst(uri => '/twice', n => 8, concurrency => 1);
		return $got->{ok};
	};

	act('server=127.0.0.1:8081&down=', 'twice');
	is(states('twice'), 'down down down down', 'all with that address');
	is(upstream('twice')->{revision}, 1, 'in one revision');
	is($share->(), 0, 'no server is left');
	act('id=1&up=', 'twice');
	is(states('twice'), 'down up down down', 'one by its id');
	is($share->(), 8, 'which serves');
	act('peer=0&up=', 'twice');
	is(states('twice'), 'up up down down', 'one by its position');
	act('server=127.1:%%PORT_8081%%&up=', 'twice');
	is(states('twice'), 'up up up down', 'one by its own text');
	is(upstream('twice')->{revision}, 4, 'each in one revision');

	my $mark = $t->log_mark();
	act('server=127.0.0.1:8081&weight=4', 'twice');
	is_deeply([ map { $_->{weight} } @{ upstream('twice')->{peers} } ],
		[ 4, 4, 4, 4 ], 'weight of all');
	is(scalar $t->grep_log(qr/weight \d -> 4, revision 5/, $mark), 4,
		'a line for each');
}

# All of them in one revision, or none.
sub several {
	my $revision = upstream('u')->{revision};
	my $servers = 'servers=127.0.0.1:8081,[::1]:8083,127.0.0.1:8082';

	like(act("$servers&drain="), qr/\A200 server /, 'servers=');
	is(states(), 'draining draining down draining down', 'all are drained');
	is(upstream('u')->{revision}, $revision + 1, 'in one revision');
	act("$servers&up=&max_conns=0");
	is(upstream('u')->{revision}, $revision + 2, 'and back');

	is(act('servers=127.0.0.1:8081,127.0.0.1:8089&down='),
		'400 server or peer is not found: "127.0.0.1:8089"', 'one that is not there');
	is(act('servers=127.0.0.1:8081,127.0.0.1:8081&down='),
		'400 duplicate server "127.0.0.1:8081" in "servers"', 'one twice');
	is(states(), 'up up down up down', 'nothing was changed');
	is(upstream('u')->{revision}, $revision + 2, 'nor counted');

	# The same peer by two texts is one peer.
	act('servers=127.0.0.1:8081,127.1:%%PORT_8081%%&weight=6', 'twice');
	is_deeply([ map { $_->{weight} } @{ upstream('twice')->{peers} } ],
		[ 6, 6, 6, 6 ], 'overlapping choices');
}

sub names {
	SKIP: {
		skip('"localhost" has not two addresses', 3) unless $two_addresses;

		act('server=localhost:8081&down=', 'named');
		is(states('named'), 'down down up', 'a name means all its addresses');
		act('server=[::1]:8081&up=', 'named');
		is(states('named'), 'down up up', 'an address means one') if
			upstream('named')->{peers}[1]{name} =~ /::1/;
		is(states('named'), 'up down up', 'an address means one') if
			upstream('named')->{peers}[0]{name} =~ /::1/;
		is(upstream('named')->{revision}, 2, 'one revision each');
	}
}

# Peers that nginx makes while it runs have ids, too.
sub resolved {
	SKIP: {
		skip('no "resolve" before nginx 1.27.3', 7) unless $resolve;

		my $servers = sub {
			return map { [ $_->{id}, $_->{name} =~ s/:\d+//r, $_->{state} ] }
				@{ upstream('resolved')->{peers} };
		};
		my $sorted = sub {
			return [ sort { "@$a" cmp "@$b" } map { [ @$_[1, 2] ] }
				$servers->() ];
		};

		ok($t->wait_for(sub { $servers->() == 3 }, 5, 'two addresses'),
			'name is resolved');
		is_deeply($sorted->(), [ [ '127.0.0.1', 'up' ], [ '127.0.0.1', 'up' ],
			[ '127.0.0.2', 'up' ] ], 'its peers');
		is(scalar(grep { defined $_->[0] } $servers->()), 3, 'all have ids');

		act('server=app.test:%%PORT_8081%%&down=', 'resolved');
		is_deeply($sorted->(), [ [ '127.0.0.1', 'down' ], [ '127.0.0.1', 'up' ],
			[ '127.0.0.2', 'down' ] ], 'the name means both');

		my %before = map { $_->[0] => 1 } $servers->();
		my ($id) = map { $_->[0] } grep { $_->[1] eq '127.0.0.2' } $servers->();
		act('server=127.0.0.2:8081&up=', 'resolved');
		$t->write_file('addresses', '127.0.0.2 127.0.0.3');
		ok($t->wait_for(sub { grep { $_->[1] eq '127.0.0.3' } $servers->() },
			10, 'another address'), 'name is resolved again');

		my ($new) = grep { $_->[1] eq '127.0.0.3' } $servers->();
		ok(defined $new->[0] && !$before{ $new->[0] },
			'its id was never used before');
		is_deeply([ grep { $_->[1] eq '127.0.0.2' } $servers->() ],
			[ [ $id, '127.0.0.2', 'up' ] ],
			'the one that stayed is as it was');
	}
}
