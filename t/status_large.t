#!/usr/bin/env perl

# Tests for the status of very many servers: it is whole, of one moment, and made
# while the client reads, so that neither a slow client nor a fast one is felt by
# others.  One worker does all of it, but for the last.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Uncompress::Gunzip qw/gunzip/;
use Test::More;

use Test::Nginx;
use Test::Nginx::Response;

# What a worker may grow by over hundreds of abandoned replies, in kB.
use constant GROWTH => 8_000;

my $t = Test::Nginx->new(timeout => 240)
	->has(qw/module http grpc v2 ssi gzip upstream_zone/);

$t->plan(67);

my $COUNT = 10_000;
my $PORT = port(8081);
my @SERVERS = map { sprintf '127.%d.%d.%d:%d', 1 + $_ % 7, $_ / 250, 1 + $_ % 250, $PORT }
	0 .. $COUNT - 1;

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes %%WORKERS%%;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%

    keepalive_requests 100000;
    subrequest_output_buffer_size 4m;

    upstream big {
        zone big 16m;
%%SERVERS%%
    }

    upstream small {
        zone small 64k;
        server 127.0.0.1:8081;
    }

    server {
        # What the system buffers hides what nginx does.
        listen 127.0.0.1:8080 sndbuf=32k;

        location = /status {
            upstream_status;
        }

        location = /control {
            upstream_control;
        }

        location = /return {
            return 200 ok;
        }

        location = /gzip {
            gzip on;
            gzip_types application/json;
            gzip_min_length 0;
            upstream_status;
        }

        location = /limited {
            limit_rate 600k;
            upstream_status;
        }

        location = /impatient {
            send_timeout 1s;
            upstream_status;
        }

        location /h2 {
            rewrite /h2 /status break;
            grpc_pass grpc://127.0.0.1:8082;
        }

        location ~ \.html$ {
            ssi on;
        }
    }

    server {
        listen 127.0.0.1:8082 http2;

        location = /status {
            add_header grpc-status 0;
            upstream_status;
        }
    }
}
CONF

configure(1);

$t->write_file('include.html', 'A<!--#include virtual="/status?$args" -->B'
	. '<!--#include virtual="/status?limit=1&fields=id&format=json" -->C'
	. '<!--#include virtual="/status?$args" -->D');
$t->write_file('memory.html', '<!--#include virtual="/status?$args" set="x" -->A'
	. '<!--#echo var="x" encoding="none" -->B');

$t->run();
$t->leak_keys('/status', 8080);

# Without what changes from one to the next: nothing, as nobody changes anything.
my $JSON = 'upstream=big&format=json';
my $whole = http_get("/status?$JSON");

whole();
ways();
parts();
refused();
moment('a moment');
slow();
fast();
gone();
stuck();

# Changes come while a status is taken, too.
configure(2);
$t->reload();
moment('two workers');

sub configure ($workers) {
	$t->write_file_expand('nginx.conf', $CONF, WORKERS => $workers,
		SERVERS => join "\n", map { "        server $_;" } @SERVERS);
}

sub whole {
	is($whole->status(), 200, 'whole');
	is($whole->header('transfer-encoding'), 'chunked', 'whole: chunked');
	is($whole->header('content-length'), undef, 'whole: no length');
	is($whole->header('cache-control'), 'no-store', 'whole: headers');

	my $big = $whole->json()->{upstreams}{big};
	is_deeply([ map { $_->{server} } @{ $big->{peers} } ], \@SERVERS,
		'whole: every server, in order');
	is_deeply([ map { $_->{id} } @{ $big->{peers} } ], [ 0 .. $COUNT - 1 ],
		'whole: ids');
	ok(!exists $big->{matched}, 'whole: nothing is said of parts');
	ok($big->{zone_memory}, 'whole: what follows the peers');

	my $text = http_get('/status?upstream=big&format=text')->body();
	my @lines = split /\n/, $text;
	is(scalar @lines, $COUNT + 2, 'text: every server');
	is(scalar(grep { !/ up  +1  +0  +0  +0\/1  +10s  +-\z/ } @lines[2 .. $#lines]),
		0, 'text: every line');
	is((grep { index($_, 'reason') == length($lines[1]) - 6 } $lines[1])[0],
		$lines[1], 'text: heads');

	my $metrics = http_get('/status?upstream=big&format=prometheus')->body();
	is(scalar(() = $metrics =~ /^nginx_upstream_peer_weight\{/mg), $COUNT,
		'metrics: every server');
	is(scalar(() = $metrics =~ /^# TYPE /mg), 14, 'metrics: each once');

	is(http_get('/status?upstream=small&format=json')->header('content-length')
		> 0, 1, 'a short one has a length');
}

# All ways of transport give the same bytes.
sub ways {
	my $body = $whole->body();

	my $old = http_get("/status?$JSON", version => '1.0');
	ok($old->body() eq $body, 'HTTP/1.0');
	is($old->header('transfer-encoding'), undef, 'HTTP/1.0: not chunked');
	is($old->header('connection'), 'close', 'HTTP/1.0: ends by closing');

	my $head = http_head("/status?$JSON");
	is($head->status(), 200, 'HEAD');
	is($head->body(), '', 'HEAD: no body');
	is(http_head('/status?upstream=small&format=json')
		->header('content-length'), length http_get(
		'/status?upstream=small&format=json')->body(), 'HEAD: a short one');

	my $kept = burst(uri => "/status?$JSON", n => 5, concurrency => 1,
		keepalive => 1);
	is($kept->{reused}, 4, 'keepalive: one connection');
	is(scalar(grep { $_->{body} eq $body } @{ $kept->{requests} }), 5,
		'keepalive: the same');

	my $request = "GET /status?$JSON HTTP/1.1\r\nHost: localhost\r\n\r\n";
	my $both = http($request . "GET /return HTTP/1.1\r\nHost: localhost\r\n"
		. "Connection: close\r\n\r\n", replies => 2);
	like($both, qr/\r\n0\r\n\r\nHTTP\/1\.1 200 OK\r\n.*\r\n\r\nok\z/s, 'pipelined');

	my $gzip = http_get("/gzip?$JSON",
		headers => { 'Accept-Encoding' => 'gzip' });
	is($gzip->header('content-encoding'), 'gzip', 'gzip');
	gunzip(\$gzip->body(), \my $plain);
	ok($plain eq $body, 'gzip: the same');

	ok(http_get("/h2?$JSON")->body() eq $body, 'HTTP/2');

	my $posted = http_request(uri => "/status?$JSON", body => 'x' x 100_000,
		method => 'GET');
	ok($posted->body() eq $body, 'a request with a body');

	my $begin = now();
	my $limited = http_get("/limited?$JSON&fields=id,state", timeout => 30);
	ok(length $limited->body() > 200_000, 'limit_rate: all of it');
	cmp_ok(now() - $begin, '<', 10, 'limit_rate: in time');

	my $one = http_get('/status?limit=1&fields=id&format=json')->body();
	ok(http_get("/include.html?$JSON", timeout => 30)->body()
		eq "A${body}B${one}C${body}D", 'subrequests');
	my $memory = http_get("/memory.html?$JSON", timeout => 30)->body();
	ok($memory eq "A${body}B", 'a subrequest in memory');

	my $many = burst(uri => "/status?$JSON", n => 40, concurrency => 20,
		timeout => 60);
	is(scalar(grep { $_->{body} eq $body } @{ $many->{requests} }), 40,
		'many at once');
}

sub big ($args) {
	return get_json("/status?$JSON&$args")->{upstreams}{big};
}

sub ids ($big) {
	return [ map { $_->{id} } @{ $big->{peers} } ];
}

sub parts {
	my $big = big('fields=state,id');
	is($big->{matched}, undef, 'fields: all servers');
	is_deeply($big->{peers}, [ map { { id => $_, state => 'up' } }
		0 .. $COUNT - 1 ], 'fields: these only');
	like(http_get("/status?$JSON&fields=state,id")->body(),
		qr/\{"id":0,"state":"up"\},/, 'fields: in their usual order');

	my @down = (3, 4_000, 9_999);
	my @drained = (5, 5_000);
	change($_, 'down') for @down;
	change($_, 'drain') for @drained;

	$big = big('state=down&fields=id');
	is_deeply(ids($big), \@down, 'state=down');
	is($big->{matched}, 3, 'state=down: so many');
	is_deeply(ids(big('state=drain')), \@drained, 'state=drain');
	is_deeply(ids(big('state=draining')), \@drained, 'state=draining');
	is_deeply(ids(big('state=down,drain')),
		[ sort { $a <=> $b } @down, @drained ], 'two states');
	is_deeply(big('state=unavail')->{peers}, [], 'no such server');

	my $up = big('state=up&fields=id&offset=9990&limit=10&verbose=');
	is($up->{matched}, $COUNT - 5, 'a part: of so many');
	is_deeply(ids($up), [ 9_994 .. 9_998 ], 'a part: the end of it');
	is($up->{leaks}{primary}{number}, $COUNT, 'a part: totals of the whole');

	my @paged = map { @{ ids(big('fields=id&limit=3000&offset=' . 3000 * $_)) } }
		0 .. 3;
	is_deeply(\@paged, [ 0 .. $COUNT - 1 ], 'page by page');

	my $text = http_get('/status?upstream=big&format=text&state=down')->body();
	is(scalar(() = $text =~ /\n/g), 5, 'text: a part');
	like($text, qr/\A.*, 3 matched\n/, 'text: of so many');

	change($_, 'up') for @down, @drained;
}

sub change ($id, $verb) {
	my $reply = http_get("/control?upstream=big&id=$id&$verb=");
	die "$verb of $id failed\n" if $reply->status() != 200;
}

sub refused {
	my $refused = sub ($args) {
		my $reply = http_get("/status?format=json&$args");
		return join ' ', $reply->status(), $reply->json()->{error}{text};
	};

	is($refused->('fields=id,nmae'), '400 invalid value "nmae" in "fields"',
		'an unknown field');
	like($refused->('state=sideways'), qr/\A400 invalid value "sideways" in "state", it must be "up" or /,
		'an unknown state');
	is($refused->('offset=-1'), '400 invalid value "-1" in "offset"',
		'no offset');
	is($refused->('limit=all'), '400 invalid value "all" in "limit"',
		'no limit');
	is(http_get('/status?format=prometheus&state=up')->body(),
		qq("state" needs "format=json"\n), 'metrics of a part');
}

# Two servers change together, one at either end of a list that takes longer to
# read than a change takes to come.
sub moment ($name) {
	my $ends = join ',', @SERVERS[ 0, -1 ];
	my $first = big('limit=0')->{revision};
	my $load = $t->load(
		seconds => 60, concurrency => 1, keepalive => 1,
		uri => sub ($n) {
			return "/control?upstream=big&format=json&servers=$ends&"
				. ($n % 2 ? 'up=' : 'down=');
		},
	);
	my %revisions;
	my $torn = 0;

	for (1 .. 20) {
		my $reply = read_slowly("/status?$JSON&fields=state,weight,server,name",
			sub ($bytes) { select undef, undef, undef, 0.001 });
		my ($revision) = $reply->body() =~ /"revision":(\d+)/;
		my @states = $reply->body() =~ /"state":"(\w+)"/g;

		$revisions{$revision} = 1;
		my $state = ($revision - $first) % 2 ? 'down' : 'up';
		$torn++ if @states != $COUNT || $states[0] ne $state
			|| $states[-1] ne $state;
	}

	my $got = $load->finish(now => 1);
	is($got->{failed}, 0, "$name: changes meanwhile");
	cmp_ok(scalar keys %revisions, '>', 5, "$name: they are seen");
	is($torn, 0, "$name: all servers of the same");
	change($_, 'up') for 0, $COUNT - 1;
}

# Reads a reply by 1 kB, and calls "each" with what is there so far after each.
sub read_slowly ($uri, $each, %how) {
	my $s = http_start(uri => $uri, %how)->{over};
	my $bytes = '';

	while (1) {
		my $r = '';
		vec($r, fileno $s, 1) = 1;
		select $r, undef, undef, 10 or last;
		my $n = sysread $s, $bytes, $how{size} // 65_536, length $bytes;
		next if !defined $n && $!{EAGAIN};
		last unless $n;
		$each->($bytes);
	}

	return Test::Nginx::Response->parse(\$bytes, eof => 1);
}

# A kilobyte now and then; others are served between two of them.
sub slow {
	my $before = http_get("/status?$JSON")->body();
	my $n = 0;
	my @seconds;

	my $reply = read_slowly("/status?$JSON", sub ($bytes) {
		return if $n++ >= 60;

		my $begin = now();
		my $other = http_get('/return');
		push @seconds, now() - $begin;
		change(7, 'down') if $n == 30;
		select undef, undef, undef, 0.05;
	}, size => 1_000);

	change(7, 'up');
	ok($reply->body() eq $before, 'a slow client gets what was when it asked');
	cmp_ok(quantile(0.9, @seconds), '<', 0.05, 'a slow client holds up nobody');
}

sub quantile ($part, @numbers) {
	my @sorted = sort { $a <=> $b } @numbers;
	return $sorted[ $part * $#sorted ];
}

# One long reply after the other, by a client that takes all at once.
sub fast {
	my $load = $t->load(seconds => 60, concurrency => 1, keepalive => 1,
		uri => "/status?$JSON");
	my $got = burst(uri => '/return', n => 200, concurrency => 1,
		keepalive => 1);
	my $long = $load->finish(now => 1);

	is($got->{ok}, 200, 'beside a fast client: requests');
	is($long->{failed}, 0, 'beside a fast client: its own');
	cmp_ok(quantile(0.9, map { $_->{ended} - $_->{started} }
		@{ $got->{requests} }), '<', 0.05, 'beside a fast client: no waiting');
}

sub memory () {
	my ($worker) = $t->workers();
	open my $fh, '<', "/proc/$worker/status" or die "no worker: $!\n";
	my ($kb) = join('', <$fh>) =~ /^VmRSS:\s*(\d+) kB/m;
	return $kb;
}

# Clients that leave in the middle, with and without unread bytes.
sub gone {
	my $leave = sub ($n) {
		my $handle = http_start(uri => "/status?$JSON");
		my $r = '';
		vec($r, fileno $handle->{over}, 1) = 1;
		select $r, undef, undef, 10;
		sysread $handle->{over}, my $bytes, 20_000 if $n % 2;
	};

	$leave->($_) for 1 .. 50;
	my $before = memory();
	$leave->($_) for 1 .. 200;
	# All of them are closed when the next one is answered.
	http_get('/return');
	cmp_ok(memory() - $before, '<', GROWTH, 'clients that leave leave nothing');
	ok(http_get("/status?$JSON")->body() eq http_get("/status?$JSON")->body(),
		'the next one gets all');
}

# A client that reads nothing any more.
sub stuck {
	my $mark = $t->log_mark();
	my $handle = http_start(uri => "/impatient?$JSON");
	my $line = $t->find_in_log(qr/client timed out/, 10, $mark);
	like($line, qr/impatient/, 'a client that reads nothing is given up');

	my $reply = http_finish($handle);
	is($reply->error(), 'closed inside a reply', 'and sees no whole reply');
}
