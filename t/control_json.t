#!/usr/bin/env perl

# Tests for upstream_control's replies in JSON: the same for all its forms.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP ();
use Test::More;

use Test::Nginx;

my $t = Test::Nginx->new()
	->has(qw/module http proxy upstream_zone unix ipv6/)
	->plan(47);

$t->write_file_expand('nginx.conf', <<'CONF');
%%TEST_GLOBALS%%
worker_processes 2;
events { }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream u {
        zone u_zone 64k;
        server 127.0.0.1:8081;
        server 127.0.0.1:8082;
        server 127.0.0.1:8082 backup;
    }

    upstream fixed {
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;
        listen [::1]:8080;
        listen unix:%%TESTDIR%%/nginx.sock;

        location /control {
            upstream_control;
        }

        location /post {
            upstream_control methods=POST;
        }

        location /status {
            upstream_status;
        }
    }
}
CONF

my ($yes, $no) = (JSON::PP::true, JSON::PP::false);
my @ALL = (peer(0, 8081), peer(1, 8082), peer(2, 8082, backup => $yes));

$t->run();
$t->leak_keys('/status', 8080);

lists();
changes();
several();
eblb();
errors();
accepted();
forms();
clients();

sub json ($args, %request) {
	return control("/control?$args&format=json", %request)->json();
}

sub peer ($id, $port, %other) {
	my $name = "127.0.0.1:$port";

	return {
		id => $id, server => $name, name => $name, backup => $no, weight => 1,
		effective_weight => 1, current_weight => 0, state => 'up', active => 0,
		max_conns => 0, fails => 0, max_fails => 1, fail_timeout => '10s',
		down => $no, %other,
	};
}

sub by_operator ($state, %other) {
	return (
		state => $state, down => $no,
		reason => { by => 'operator', client => '127.0.0.1', %other },
	);
}

# The time is checked here, and left out of what is compared.
sub timed ($reply) {
	my @peers = $reply->{server} // @{ $reply->{servers} };

	for my $reason (grep { $_ } map { $_->{reason} } @peers) {
		like(delete $reason->{at}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\z/,
			'time of the change');
	}

	return $reply;
}

sub lists {
	my $list = { upstream => 'u', revision => 0, servers => \@ALL };

	is_deeply(json($_), $list, $_) for 'upstream=u', 'upstream=u_zone',
		'upstream=u&verbose=', 'upstream=u&server=127.0.0.1:8081', 'stream=u',
		'stream=u&peer=1';
	is_deeply(json('upstream=u&id=1'),
		{ upstream => 'u', revision => 0, server => $ALL[1] }, 'one by its id');

	my $fixed = json('upstream=fixed');
	is_deeply([ $fixed->{revision}, map { $_->{id} } @{ $fixed->{servers} } ],
		[ 0, undef ], 'a static upstream');
}

sub changes {
	is_deeply(timed(json('upstream=u&server=127.0.0.1:8081&down=&note=disk')),
		{ upstream => 'u', revision => 1, server => peer(0, 8081,
			by_operator('down', note => 'disk'), down => $yes) },
		'revision and server after a change');
	is_deeply(timed(json('upstream=u&peer=0&down=')),
		{ upstream => 'u', revision => 1, server => peer(0, 8081,
			by_operator('down', note => 'disk'), down => $yes) },
		'no change');
	is(json('upstream=u&id=0&drain=')->{server}{state}, 'draining', 'by id');
	is_deeply(timed(json('upstream=u&id=0&up=&weight=2&max_conns=3&max_fails=4'
			. '&fail_timeout=1m')),
		{ upstream => 'u', revision => 3, server => peer(0, 8081,
			by_operator('up'), weight => 2, effective_weight => 2,
			max_conns => 3, max_fails => 4, fail_timeout => '60s') },
		'parameters');
	is(json('upstream=u&id=0&weight=1')->{server}{weight}, 1, 'weight');
}

sub several {
	my $got = json('upstream=u&server=127.0.0.1:8082&max_conns=2');
	is_deeply([ map { $_->{id} } @{ $got->{servers} } ], [ 1, 2 ],
		'a text that fits two');
	is($got->{server}, undef, 'is no single server');

	$got = json('upstream=u&servers=127.0.0.1:8081,127.0.0.1:8082&max_conns=3');
	is_deeply([ $got->{revision}, map { @$_{qw/id max_conns/} }
		@{ $got->{servers} } ], [ 6, 0, 3, 1, 3, 2, 3 ], 'servers=');
	$got = json('upstream=u&servers=127.0.0.1:8081&max_conns=4');
	is_deeply([ map { $_->{id} } @{ $got->{servers} } ], [ 0 ],
		'servers= with one is a list as well');
}

sub eblb {
	my $got = json('stream=u&peer=1&down=true');
	is_deeply([ @$got{qw/upstream revision/}, @{ $got->{server} }{qw/id state/} ],
		[ 'u', 8, 1, 'down' ], 'stream=');
	$got = json('stream=u&peer=1&down=0&gui=1');
	is_deeply([ $got->{revision}, $got->{server}{state} ], [ 9, 'up' ],
		'gui= makes no page of JSON');
}

sub errors {
	my @rows = (
		[ 'upstream=nope', 404, 'UpstreamNotFound', 'upstream is not found: "nope"' ],
		[ 'stream=nope&peer=0&down=1', 404, 'UpstreamNotFound',
			'upstream is not found: "nope"' ],
		[ 'stream=nope', 404, 'UpstreamNotFound', 'upstream is not found: "nope"' ],
		[ 'upstream=u&server=127.0.0.3:9&down=', 400, 'ServerNotFound',
			'server or peer is not found: "127.0.0.3:9"' ],
		[ 'upstream=u&id=9', 400, 'ServerNotFound',
			'server or peer is not found: "9"' ],
		[ 'upstream=u&peer=9&up=', 400, 'ServerNotFound', 'bad peer id: 9' ],
		[ 'stream=u&peer=9&down=1', 400, 'ServerNotFound', 'bad peer id: 9' ],
		[ 'upstream=fixed&peer=0&up=', 501, 'UpstreamStatic',
			q(only for upstream with 'zone') ],
		[ 'upstream=u&peer=0&up=&down=', 400, 'BadArgument',
			'down and up at once are not allowed' ],
		[ 'upstream=u&peer=0&weight=x', 400, 'BadArgument',
			'weight: not a number: "x"' ],
		[ 'upstream=u&peer=0&up=&note=' . 'x' x 129, 400, 'BadValue',
			'note: 129 bytes are too long, at most 128 are kept' ],
		[ 'upstream=u&stream=', 501, 'NotSupported',
			'stream: not yet supported' ],
		[ 'upstream=u&add=&server=app.example.com', 400, 'BadArgument',
			'host name "app.example.com" where an address is needed' ],
		[ 'upstream=u&nope%22=', 400, 'BadArgument',
			'unknown argument "nope\\x22"' ],
		[ 'upstream=u&verbose&verbose', 400, 'BadArgument',
			'duplicate argument "verbose"', 'unreadable' ],
	);

	for my $row (@rows) {
		my ($args, $status, $code, $text, $unreadable) = @$row;
		# What cannot be read names no format; the header does.
		my $r = control("/control?$args" . ($unreadable ? '' : '&format=json'),
			headers => $unreadable ? { Accept => 'application/json' } : {});
		is_deeply([ $r->status(), $r->json() ], [ $status, { error => {
			status => $status, code => $code, text => $text } } ], $args);
	}

	my $r = control('/post?upstream=u&format=json');
	is_deeply([ $r->header('Allow'), $r->json() ], [ 'POST', { error => {
		status => 405, code => 'MethodNotAllowed', text => 'only POST allowed',
	} } ], 'a guard');
}

# JSON is for those who name it: scripts of old send "*/*".
sub accepted {
	my ($json, $text) = qw{application/json text/plain};
	my @rows = (
		[ undef, $text ], [ '*/*', $text ], [ 'application/*', $text ],
		[ 'application/json', $json ],
		[ 'text/plain;q=0.5, application/json', $json ],
		[ 'text/plain, application/json;q=0.5', $text ],
	);

	for my $row (@rows) {
		my ($accept, $type) = @$row;
		is(http_get('/control?upstream=u', headers => { Accept => $accept })
			->header('Content-Type'), $type,
			'Accept: ' . ($accept // 'none'));
	}
}

sub forms {
	my $got = control('/control', method => 'POST', body =>
		'upstream=u&id=1&drain=&format=json', headers => {
			'Content-Type' => 'application/x-www-form-urlencoded',
		})->json();
	is($got->{server}{state}, 'draining', 'format= in a form');
}

# Who asked, in the words of nginx's log.
sub clients {
	my %clients = ('::1' => { host => '::1' },
		'unix:' => { socket => $t->testdir() . '/nginx.sock' });

	for my $client (sort keys %clients) {
		my $got = json('upstream=u&id=1&down=&note=' . length $client,
			%{ $clients{$client} });
		is($got->{server}{reason}{client}, $client, "client $client");
	}
}
