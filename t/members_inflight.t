#!/usr/bin/env perl

# Tests for requests under way on a server that leaves or moves: they end as if
# nothing had happened, and the memory of the server is given back afterwards.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::IP;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy upstream_zone upstream_least_conn
/);

$t->plan(55);

# How long a download takes, and how many pieces it has.
use constant { SECONDS => 4, PIECES => 40, SIZE => 4000 };

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    log_format addr '$uri $status $upstream_addr $upstream_status';
    access_log %%TESTDIR%%/addr.log addr;

    upstream removed {
        zone removed 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8083 backup;
    }

    upstream moved {
        zone moved 64k;
        least_conn;
        server 127.0.0.1:8081;
        server 127.0.0.1:8084 backup;
    }

    upstream backup {
        zone backup 64k;
        server 127.0.0.1:8083 down;
        server 127.0.0.1:8081 backup;
    }

    # The first try is still under way when its server leaves.
    upstream retried {
        zone retried 128k;
        upstream_capacity 30;
        server 127.0.0.1:8082;
        server 127.0.0.1:8083 backup;
    }

    map $http_upgrade $connection_upgrade {
        default upgrade;
        ''      '';
    }

    server {
        listen 127.0.0.1:8080 reuseport;

        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_buffering off;
        proxy_next_upstream error timeout http_500;
        proxy_read_timeout 10s;

        location /status {
            access_log off;
            upstream_status;
        }

        location /control {
            access_log off;
            upstream_control;
        }

        location ~ ^/(?:download|upgrade|quick)/(?<name>\w+)$ {
            proxy_pass http://$name;
        }
    }
}
CONF

# At all addresses of this machine, which are so many servers.
my $listener = IO::Socket::IP->new(LocalHost => '0.0.0.0',
	LocalPort => port(8081), Listen => 64, ReuseAddr => 1)
	or die "cannot listen: $!\n";
$t->run_daemon(\&serve, $listener);
close $listener;

my $failing = $t->backend('127.0.0.1:8082', delay => 1, status => 500);
$t->backend('127.0.0.1:8083');

$t->run();
$t->leak_keys('/status', 8080);

# All at the same time, since each takes as long as a download.
my @ROWS = (
	[ removed => qr/\A8083\z/, 'remove=&id=0' ],
	# There and back, while the old one is in use under the same address.
	[ moved => qr/\A8081\z/, 'id=0&server=127.0.0.1:8083',
		'id=0&server=127.0.0.1:8081' ],
	[ backup => qr/>502 /, 'remove=&id=1' ],
);
my %before = map { $_ => upstream($_)->{zone_memory}{pages}{free} }
	map { $_->[0] } @ROWS;
my %under_way = map { $_->[0] => begin($_->[0]) } @ROWS;
my $began = now();

leave(@$_) for @ROWS;
finish($_->[0]) for @ROWS;
freed($_->[0]) for @ROWS;
retried();
many();

sub act ($name, $args) {
	return control("/control?upstream=$name&$args");
}

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

# A backend that takes its time: a download in pieces, and an echo after an
# upgrade.  Each connection has a process of its own.
sub serve ($listener) {
	local $SIG{CHLD} = 'IGNORE';

	while (my $s = $listener->accept()) {
		my $pid = fork() // die "fork: $!\n";
		next if $pid;

		alarm 30;
		my $head = '';
		while ($head !~ /\r\n\r\n/) { sysread $s, $head, 4096, length $head or exit }

		if ($head =~ /^Upgrade:/mi) {
			syswrite $s, "HTTP/1.1 101 Switching\r\nUpgrade: echo\r\n"
				. "Connection: upgrade\r\n\r\n";
			while (sysread $s, my $bytes, 4096) { syswrite $s, "<$bytes>" }
			exit;
		}

		if ($head =~ /^GET \/quick/) {
			syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n8081";
			exit;
		}

		my $size = PIECES * SIZE;
		syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: $size\r\n\r\n";
		for my $piece (1 .. PIECES) {
			syswrite $s, chr(65 + $piece % 26) x SIZE;
			select undef, undef, undef, SECONDS / PIECES;
		}
		exit;
	}
}

sub begin ($name) {
	my $download = http_start(uri => "/download/$name", timeout => 20);
	my $upgrade = http_start(uri => "/upgrade/$name", timeout => 20, headers => {
		Upgrade => 'echo', Connection => 'upgrade' });
	ok($t->wait_for(sub { upstream($name)->{leaks}{ $name eq 'backup'
		? 'backup' : 'primary' }{conns} == 2 }, 5, "$name: both are under way"),
		"$name: a download and an upgrade");
	like(answer($upgrade), qr/\AHTTP\/1.1 101 /, "$name: upgraded");

	return { download => $download, upgrade => $upgrade };
}

# What comes next over an upgraded connection.
sub answer ($handle, $say = undef) {
	my $s = $handle->{over};
	my $got = '';
	syswrite $s, $say if defined $say;

	$t->wait_for(sub { sysread $s, $got, 4096, length $got;
		$got =~ /\r\n\r\n\z|>\z/ }, 5, 'an answer');

	return $got;
}

# Whether the requests are at a server that left and is there again: it has its
# own back, with the requests that are under way there.
sub has_own ($name) { return $name eq 'moved' }

sub leave ($name, $quick, @changes) {
	is(act($name, $_)->status(), 200, "$name: $_") for @changes;

	my $shown = upstream($name);
	is_deeply([ $shown->{zombies},
		@{ $shown->{leaks}{primary} }{qw/zombies zombie_conns conns/} ],
		has_own($name) ? [ 0, 0, 0, 2 ] : [ 1, 1, 2, 0 ],
		"$name: the old server is kept for them");
	is_deeply([ http_get("/status?upstream=$name&verbose=&format=text")->body()
		=~ /^  (zombies: .*)$/m ], [ has_own($name) ? () : 'zombies: 1, conns 2' ],
		"$name: as the text says");
	is(answer($under_way{$name}{upgrade}, 'a'), '<a>',
		"$name: the upgrade goes on");
	like(http_get("/quick/$name")->body(), $quick,
		"$name: new requests go where they shall");
}

sub finish ($name) {
	my $r = http_finish($under_way{$name}{download}, timeout => 20);
	is(length $r->body(), PIECES * SIZE, "$name: the download is whole");
	is($r->body() =~ tr/A-Z//c, 0, "$name: and nothing but it");
	cmp_ok(now() - $began, '>', SECONDS - 1, "$name: it took its time");
	is(answer($under_way{$name}{upgrade}, 'b'), '<b>',
		"$name: the upgrade still goes on");
	is(upstream($name)->{zombies}, has_own($name) ? 0 : 1,
		"$name: and keeps it");
	close delete $under_way{$name}{upgrade}{over};
}

sub freed ($name) {
	ok($t->wait_for(sub { !upstream($name)->{zombies} }, 10,
		"$name: it is gone"), "$name: it is gone soon afterwards");
	is(upstream($name)->{zone_memory}{pages}{free}, $before{$name},
		"$name: with its memory");

	my $port = port(8081);
	my $lines = sub {
		my @lines = sort grep { m{^/(?:download|upgrade)/$name } }
			split /\n/, $t->read_file('addr.log');
		return @lines;
	};
	$t->wait_for(sub { $lines->() == 2 }, 5, "$name: both are logged");
	is_deeply([ $lines->() ],
		[ "/download/$name 200 127.0.0.1:$port 200",
			"/upgrade/$name 101 127.0.0.1:$port 101" ],
		"$name: under its address");
}

# A server that leaves during the first try is not the one of the second, and
# its failure is nobody else's, unless it is there again.
sub retried {
	my $h = http_start(uri => '/quick/retried');
	$t->wait_for(sub { $failing->count() == 1 }, 5, 'retried: a first try');
	act('retried', 'remove=&id=0');
	act('retried', 'add=&server=127.0.0.1:8082');
	is(upstream('retried')->{zombies}, 0, 'retried: it has its own back');
	is(http_finish($h)->body(), '8083', 'retried: the second try succeeds');
	is_deeply([ map { @$_{qw/id fails state/} }
		@{ upstream('retried')->{peers} } ],
		[ 2, 1, 'unavail', 1, 0, 'up' ],
		'retried: whose failure it was');
	ok($t->wait_for(sub { !upstream('retried')->{zombies} }, 10,
		'retried: it is gone'), 'retried: it is gone');
}

# Each of many leaves with a request under way.
sub many {
	my $free = upstream('retried')->{zone_memory}{pages}{free};
	my @handles;

	act('retried', 'remove=&id=2');
	for my $i (1 .. 20) {
		act('retried', "add=&server=127.0.0.$i:8081&weight=$i");
		push @handles, http_start(uri => '/download/retried', timeout => 20);
		$t->wait_for(sub { upstream('retried')->{leaks}{primary}{conns} }, 5,
			'many: under way');
		act('retried', "remove=&server=127.0.0.$i:8081");
	}

	my $shown = upstream('retried');
	is($shown->{zombies}, 20, 'many: twenty are kept');
	is($shown->{leaks}{primary}{zombie_conns}, 20, 'many: each for one request');

	# Some end, others are given up.
	close $_->{over} for @handles[0 .. 9];
	is(scalar(grep { length(http_finish($_, timeout => 20)->body())
		== PIECES * SIZE } @handles[10 .. 19]), 10, 'many: they are whole');
	ok($t->wait_for(sub { !upstream('retried')->{zombies} }, 10,
		'many: all are gone'), 'many: all are gone');
	is(upstream('retried')->{zone_memory}{pages}{free}, $free,
		'many: with their memory');
}
