#!/usr/bin/env perl

# Tests for the slots that servers come into before nginx 1.27.3 when there are
# few: who gets one, who is refused, and what becomes of a slot whose server
# left with requests under way.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::IP;
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()->has(qw/
	module http proxy realip upstream_zone upstream_least_conn
	upstream_ip_hash upstream_hash upstream_random
/);

plan(skip_all => 'lists grow since nginx 1.27.3')
	if $t->has_version('1.27.3');

my %METHODS = (
	rr => '', least => 'least_conn;', ip => 'ip_hash;', hash => 'hash $arg_key;',
	ring => 'hash $arg_key consistent;', random => 'random;',
	two => 'random two;',
);
my @METHODS = sort keys %METHODS;

$t->plan(7 * 21 + 8 + 13);

# Two servers have three slots, four have five.  Backups have a quarter.
$t->write_file_expand('nginx.conf', <<'CONF', UPSTREAMS => join '',
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_capacity 2;

    %%UPSTREAMS%%

    upstream backups {
        zone backups 64k;
        upstream_capacity 4;
        server 127.0.0.1:8081 down;
        server 127.0.0.1:8082 backup;
    }

    upstream limited {
        zone limited 64k;
        server 127.0.0.1:8081 max_conns=1;
    }

    # The client's address chooses under ip_hash, hence one for each request.
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Real-IP;

    server {
        listen 127.0.0.1:8080 reuseport;

        proxy_buffering off;
        proxy_read_timeout 20s;

        %%CONTROL%%

        location ~ ^/(?:u|hold)/(?<name>\w+)$ {
            proxy_pass http://$name;
        }
    }
}
CONF
	map { "upstream $_ { zone $_ 64k; $METHODS{$_} server 127.0.0.1:8081; }\n" }
		@METHODS);

# A request for /hold/ has its answer when the test says so.
my $open = $t->testdir() . '/open';
my @PORTS = (8081 .. 8085);
for my $port (@PORTS) {
	my $listener = IO::Socket::IP->new(LocalHost => '127.0.0.1',
		LocalPort => port($port), Listen => 64, ReuseAddr => 1)
		or die "cannot listen: $!\n";
	$t->run_daemon(\&serve, $listener, $port, $open);
	close $listener;
}

$t->run();
$t->leak_keys('/status', 8080);

full($_) for @METHODS;
backups();
limited();

sub serve ($listener, $port, $open) {
	local $SIG{CHLD} = 'IGNORE';

	while (my $s = $listener->accept()) {
		my $pid = fork() // die "fork: $!\n";
		next if $pid;

		alarm 30;
		my $head = '';
		while ($head !~ /\r\n\r\n/) { sysread $s, $head, 4096, length $head or exit }

		syswrite $s, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
		if ($head =~ m{^GET /hold/}) {
			select undef, undef, undef, 0.01 until -e $open;
		}
		syswrite $s, $port;
		exit;
	}
}

sub act ($name, $args) {
	return control("/control?upstream=$name&$args");
}

sub text ($r) { return $r->told() }

sub upstream ($name) {
	return get_json("/status?upstream=$name&verbose=")->{upstreams}{$name};
}

# "id:port" of each server.
sub servers ($name) {
	return join ' ', map {
		"$_->{id}:" . $t->logical($_->{name}) =~ s/.*://r
	} @{ upstream($name)->{peers} };
}

# Who answers, or what comes instead.
sub answers ($name) {
	my %seen;

	for my $i (1 .. 24) {
		my $r = http_get("/u/$name?key=$i",
			headers => { 'X-Real-IP' => "10.$i." . $i * $i % 251 . '.1' });
		$seen{ $r->status() == 200 ? $r->body() : $r->status() } = 1;
	}

	return join ' ', sort keys %seen;
}

# Begins a request and waits until it is at a server; how many there are.
sub hold ($name) {
	my $before = under_way($name);
	unlink $open;
	my $handle = http_start(uri => "/hold/$name", timeout => 20);
	$t->wait_for(sub { under_way($name) > $before }, 5, "$name: a request");
	return $handle;
}

# All of them end.
sub let_go (@handles) {
	open my $fh, '>', $open or die "$open: $!\n";
	return join ' ', map { http_finish($_, timeout => 20)->body() } @handles;
}

# Requests at servers that are there, and that left.
sub under_way ($name) {
	my $leaks = upstream($name)->{leaks};
	return $leaks->{primary}{conns} + $leaks->{primary}{zombie_conns}
		+ ($leaks->{backup}{conns} // 0);
}

sub full ($name) {
	my $none = '500 no place left, the upstream has its 2 servers: raise '
		. '"upstream_capacity" or the size of "zone"';
	my $busy = '503 no place is free: servers that left still serve requests, '
		. 'try again or raise "upstream_capacity"';
	my $change = sub ($args, $wanted, $servers, $text) {
		my $before = upstream($name)->{revision};
		my $got = text(act($name, $args));
		is(($got =~ /\A200/ ? '200' : $got) . ", $servers", "$wanted, "
			. servers($name), "$name: $text");
		return if $wanted eq '200' || upstream($name)->{revision} == $before;
		fail("$name: $text: not a change");
	};

	$change->('add=&server=127.0.0.1:8082', '200', '0:8081 1:8082', 'two');
	$change->('add=&server=127.0.0.1:8083', $none, '0:8081 1:8082', 'no third');
	is_deeply(act($name, 'add=&server=127.0.0.1:8083&format=json')->json()
		->{error}{code}, 'NoMemory', "$name: in JSON");
	$change->('id=0&server=127.0.0.1:8083', '200', '0:8083 1:8082',
		'one moves all the same');
	$change->('id=1&server=127.0.0.1:8084', '200', '0:8083 1:8084',
		'so does the other');
	is(answers($name), '8083 8084', "$name: both serve");

	# The slot that is left is in use.
	$change->('remove=&id=1', '200', '0:8083', 'one leaves');
	my $h = hold($name);
	$change->('id=0&server=127.0.0.1:8081', '200', '0:8081',
		'one moves with a request under way');
	is(upstream($name)->{zombies}, 1, "$name: which is kept");
	$change->('add=&server=127.0.0.1:8082', '200', '0:8081 2:8082',
		'a server comes');
	$change->('id=0&server=127.0.0.1:8084', $busy, '0:8081 2:8082',
		'no slot to move to');
	is(act($name, 'id=0&server=127.0.0.1:8084')->header('Retry-After'), '1',
		"$name: for the moment");
	$change->('remove=&id=2', '200', '0:8081', 'one leaves again');
	$change->('add=&server=127.0.0.1:8084', '200', '0:8081 3:8084',
		'its slot takes another');
	is(answers($name), '8081 8084', "$name: who serves");

	# The server that left comes back to where it was.
	$change->('id=0&server=127.0.0.1:8083', '200', '0:8083 3:8084',
		'back to its own slot');
	is_deeply([ upstream($name)->{peers}[0]{active},
		upstream($name)->{zombies} ], [ 1, 0 ], "$name: and its request");
	$change->('id=0&server=127.0.0.1:8082', '200', '0:8082 3:8084',
		'and away once more');
	is(let_go($h), '8083', "$name: which ends");
	$t->wait_for(sub { !upstream($name)->{zombies} }, 5, "$name: a free slot");
	$change->('id=0&server=127.0.0.1:8085', '200', '0:8085 3:8084',
		'its slot is free');
	is(answers($name), '8084 8085', "$name: who serves in the end");
}

# One comes beside the one of the file.
sub backups {
	my $add = sub ($port, $more = '&backup=') {
		return text(act('backups', "add=&server=127.0.0.1:$port$more"));
	};

	like($add->(8083), qr/\A200 /, 'backups: one more');
	like($add->(8084), qr/\A500 no place left, the upstream has its 2 backup servers: /,
		'backups: no third');
	like(text(act('backups', 'id=1&server=127.0.0.1:8084')), qr/\A200 /,
		'backups: one moves');
	is(answers('backups'), '8083 8084', 'backups: both serve');
	like($add->(8085, ''), qr/\A200 /, 'backups: primaries have their own slots');
	is(answers('backups'), '8085', 'backups: a primary serves');
	act('backups', 'remove=&server=127.0.0.1:8085');
	act('backups', "remove=&server=127.0.0.1:$_") for 8083, 8084;
	is(answers('backups'), '502', 'backups: none');
	$add->(8083);
	is(answers('backups'), '8083', 'backups: one again');
}

# Requests that a server took before it left count when it is back.
sub limited {
	my $h = hold('limited');
	is(http_get('/u/limited')->status(), 502, 'limited: no room');
	act('limited', 'remove=&id=0');
	is(http_get('/u/limited')->status(), 502, 'limited: nobody');
	is(act('limited', 'add=&server=127.0.0.1:8081&max_conns=1')->status(), 200,
		'limited: it is back');
	is(upstream('limited')->{peers}[0]{active}, 1, 'limited: with its request');
	is(http_get('/u/limited')->status(), 502, 'limited: no room as before');
	is(act('limited', 'add=&server=127.0.0.1:8082&max_conns=1')->status(), 200,
		'limited: another one');
	is(http_get('/u/limited')->body(), '8082', 'limited: has room');
	my $other = hold('limited');
	is(http_get('/u/limited')->status(), 502, 'limited: until it has none');
	act('limited', 'server=127.0.0.1:8081&max_conns=2');
	is(http_get('/u/limited')->body(), '8081', 'limited: two here');
	is(let_go($h, $other), '8081 8082', 'limited: all are served');
	$t->wait_for(sub { !under_way('limited') }, 5, 'limited: the end');

	# At once, and never more than the limit.
	my $got = burst(uri => '/u/limited', n => 60, concurrency => 12);
	is($got->{failed}, 0 + ($got->{by_status}{502} // 0),
		'limited: 502 when there is no room, and nothing else');
	$t->wait_for(sub { !under_way('limited') }, 5, 'limited: nothing is stuck');
	is(upstream('limited')->{leaks}{primary}{conns}, 0, 'limited: none counted');
	is(answers('limited') =~ /8081/, 1, 'limited: it serves');
}
