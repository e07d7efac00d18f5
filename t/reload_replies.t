#!/usr/bin/env perl

# Tests for replies that are under way when nginx reloads: a worker that is to
# end finishes them, however long they are.

use v5.36;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use Test::Nginx;

# Servers of the status, and lines of the list.
use constant SERVERS => 5_000;
use constant LINES => 50_000;

my $t = Test::Nginx->new(timeout => 240)
	->has(qw/module http v2 ssi upstream_zone/)->plan(5);

my $port = port(8081);

my $CONF = <<'CONF';
%%TEST_GLOBALS%%
worker_processes 2;
events { worker_connections 1024; }
http {
    %%TEST_GLOBALS_HTTP%%

    upstream_control_zone 32m;
    client_max_body_size 0;
    client_body_buffer_size 64k;

    upstream big {
        zone big 16m;
%%SERVERS%%
    }

    upstream small {
        zone small 256k;
        server 127.0.0.1:8081;
    }

    server {
        listen 127.0.0.1:8080;

        location = /status {
            upstream_status;
        }

        location = /control {
            upstream_control;
        }

        location = /limited {
            limit_rate 4m;
            upstream_status;
        }

        location ~ \.html$ {
            ssi on;
        }
    }
}
CONF

configure(1);
$t->write_file('include.html', 'A<!--#include virtual="/status?$args" -->B');
$t->run();
$t->leak_keys('/status', 8080);

my $list = join '', map {
	sprintf "server 10.%d.%d.%d:80;\n", $_ / 65_536, $_ / 256 % 256, $_ % 256
} 1 .. LINES;

replacements();

configure(SERVERS);
$t->reload();
$t->leak_baseline();
statuses('an ordinary client', '/status');
statuses('limit_rate', '/limited');
statuses('a subrequest', '/include.html');

$t->wait_for(sub { !$t->old_workers() }, 20, 'old workers to end');
is(scalar $t->old_workers(), 0, 'old workers end');

# With few servers nginx reloads while a list is looked at.
sub configure ($n) {
	$t->write_file_expand('nginx.conf', $CONF, SERVERS => join "\n", map {
		sprintf '        server 127.%d.%d.%d:%d;', 1 + $_ % 7, $_ / 250,
			1 + $_ % 250, $port
	} 0 .. $n - 1);
}

# A list is read, compared and answered in many slices, between which nothing but
# the request waits for anything.  Old workers are told to end a tenth of a second
# after the new ones were begun: then it is in the midst of that.
sub replacements {
	my %seen;

	for my $round (1 .. 8) {
		$t->signal('HUP');
		select undef, undef, undef, 0.06 + 0.006 * $round;

		my $reply = http_post('/control?upstream=small&replace=&dry_run=&force=',
			$list, timeout => 20, headers => { 'Content-Type' => 'text/plain' });
		my $lines = () = $reply->body() =~ /^added /mg;
		# A worker of the configuration before knows the servers of that.
		$lines = LINES if $reply->status() == 503 && $reply->header('Retry-After');
		$seen{ $reply->error() || $lines }++;
		settle();
	}

	is_deeply(\%seen, { LINES, 8 }, 'each list gets its whole reply');
}

sub statuses ($who, $uri) {
	my $load = $t->load(uri => "$uri?upstream=big&format=json",
		seconds => 2, concurrency => 3);

	while ($load->running()) {
		select undef, undef, undef, 0.35;
		$t->signal('HUP');
	}

	my $got = $load->finish();
	is_deeply($got->{errors}, {}, "$who: none is cut");
	settle();
}

# Until the workers are those of the last reload.
sub settle {
	$t->wait_for(sub { $t->workers() == 2 }, 10, 'new workers');
}
